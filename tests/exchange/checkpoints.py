"""Writes checkpoints as deepspeech.pytorch's versions did, without PyTorch: both formats, and the objects inside."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds2_jax.engines.pytorch import MAGIC, VERSION
from tests.golden import inputs

LABELS = "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
AUDIO = {"sample_rate": 16_000, "window_size": 0.02, "window_stride": 0.01, "window": "hamming"}


class Named:
    """A class or function that a pickle names."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any) -> "Call":
        """Notes a call."""
        return Call(self, args)


class Call:
    """The call of a function, or the making of an object and its state."""

    def __init__(self, function: Any, args: Sequence[Any], state: Any = None, items: Any = ()) -> None:
        self.function, self.args, self.state, self.items = function, tuple(args), state, tuple(items)


class Array:
    """A tensor."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values)


_PythonPickler: Any = pickle._Pickler  # its methods are not declared


class Pickler(_PythonPickler):
    """Pickles these. `arrays` are those that were met, in order."""

    def __init__(self, file: io.BytesIO, *, legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self.arrays: list[np.ndarray] = []
        self._legacy = legacy

    def persistent_id(self, value: Any) -> Any:
        """Names the numbers of a tensor."""
        if not isinstance(value, tuple) or len(value) != 2 or value[0] != "numbers":
            return None
        array = value[1]
        self.arrays.append(array)
        kind = Named("torch", "FloatStorage" if array.dtype == np.float32 else "LongStorage")
        return ("storage", kind, str(len(self.arrays) - 1), "cpu", array.size, *([None] if self._legacy else []))

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        """Saves a value."""
        if isinstance(value, Named) and id(value) not in self.memo:
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            self.memoize(value)
        elif isinstance(value, Call):
            items = iter(value.items) or None
            self.save_reduce(value.function, value.args, value.state, dictitems=items, obj=value)
        elif isinstance(value, Array):
            array = value.values
            strides = tuple(step // array.itemsize for step in array.strides)
            hooks = Call(Named("collections", "OrderedDict"), ())
            rebuild = Named("torch._utils", "_rebuild_tensor_v2")
            self.save_reduce(rebuild, (("numbers", array), 0, array.shape, strides, False, hooks), obj=value)
        else:
            super().save(value, save_persistent_id)


def ordered(items: Mapping[str, Any]) -> Call:
    """Makes an OrderedDict, as state dicts are."""
    return Call(Named("collections", "OrderedDict"), (), items=items.items())


def legacy(content: Any, **system: Any) -> bytes:
    """Writes the format before PyTorch 1.6."""
    file = io.BytesIO()
    pickler = Pickler(file, legacy=True)
    pickler.dump(content)
    keys = [str(index) for index in range(len(pickler.arrays))]
    known = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}} | system
    before = [pickle.dumps(each, protocol=2) for each in (MAGIC, VERSION, known)]
    arrays = b"".join(struct.pack("<q", each.size) + each.tobytes() for each in pickler.arrays)
    return b"".join([*before, file.getvalue(), pickle.dumps(keys, protocol=2), arrays])


def zipped(content: Any, others: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Writes the zip format."""
    file, whole = io.BytesIO(), io.BytesIO()
    pickler = Pickler(file, legacy=False)
    pickler.dump(content)
    entries = {"data.pkl": file.getvalue(), "byteorder": b"little"}
    entries |= {f"data/{index}": array.tobytes() for index, array in enumerate(pickler.arrays)}
    with zipfile.ZipFile(whole, "w", compression) as archive:
        for name, data in (entries | dict(others or {})).items():
            archive.writestr(f"archive/{name}", data)
    return whole.getvalue()


def state_dict(case: inputs.ModelCase) -> dict[str, Array]:
    """Names the golden weights as the original does."""
    prefixes = {"head.": "fc.0.module.1.", "head_norm.": "fc.0.module.0.", "lookahead.": "lookahead.0.conv."}
    for layer in range(2):
        prefixes[f"conv_{layer}."] = f"conv.seq_module.{3 * layer}."
        prefixes[f"conv_norm_{layer}."] = f"conv.seq_module.{3 * layer + 1}."
    for layer in range(case.config.num_layers):
        prefixes[f"rnn_{layer}."] = f"rnns.{layer}.rnn."
        prefixes[f"rnn_norm_{layer}."] = f"rnns.{layer}.batch_norm.module."
    arrays = {}
    for name, values in inputs.model_weights(case).items():
        [prefix] = [each for each in prefixes if name.startswith(each)]
        arrays[prefixes[prefix] + name.removeprefix(prefix)] = Array(values)
    arrays["conv.seq_module.1.num_batches_tracked"] = Array(np.array([3]))
    return arrays


def omega(values: Mapping[str, Any]) -> Call:
    """Makes settings of OmegaConf."""
    nodes = {name: Call(Named("omegaconf.nodes", "AnyNode"), (), {"_val": each}) for name, each in values.items()}
    return Call(Named("omegaconf.dictconfig", "DictConfig"), (), {"_metadata": None, "_content": nodes})


def package(case: inputs.ModelCase, **changes: Any) -> dict[str, Any]:
    """Makes the contents of a package of v2.0."""
    return {
        "version": "0.0.1",
        "hidden_size": case.config.hidden_size,
        "audio_conf": AUDIO | {"noise_dir": None},
        "labels": LABELS,
        "state_dict": ordered(state_dict(case)),
        "bidirectional": case.config.bidirectional,
    } | changes


def package_2_1(case: inputs.ModelCase, **changes: Any) -> dict[str, Any]:
    """Makes the contents of a package of V2.1."""
    window = Call(Named("deepspeech_pytorch.enums", "SpectrogramWindow"), ("hamming",))
    content = package(case, audio_conf=omega(AUDIO | {"window": window}), labels=[*LABELS])
    del content["version"]
    return content | changes


def lightning(case: inputs.ModelCase, version: str = "1.1.1", **changes: Any) -> dict[str, Any]:
    """Makes the contents of a checkpoint of V3."""
    window = Call(Named("deepspeech_pytorch.enums", "SpectrogramWindow"), ("hamming",))
    kind = Call(Named("deepspeech_pytorch.enums", "RNNType"), (Named("torch.nn.modules.rnn", "LSTM"),))
    settings = {
        "labels": [*LABELS],
        "model_cfg": omega({"rnn_type": kind, "hidden_size": case.config.hidden_size}),
        "spect_cfg": omega(AUDIO | {"window": window}),
    }
    return {
        "epoch": 3,
        "pytorch-lightning_version": version,
        "state_dict": ordered(state_dict(case)),
        "hyper_parameters": settings,
    } | changes


CONTAINERS: Mapping[str, Callable[[inputs.ModelCase], bytes]] = {
    "v2.0": lambda case: legacy(package(case)),
    "V2.1": lambda case: zipped(package_2_1(case)),
    "V3": lambda case: zipped(lightning(case)),
}

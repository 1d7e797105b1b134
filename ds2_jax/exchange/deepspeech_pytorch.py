"""Translates checkpoints of deepspeech.pytorch, v2.0 to V3, into the settings and weights of this package.

Source: deepspeech.pytorch, model.py, configs and training state of the tags v2.0, V2.1 and V3.0.
Differs: v1.x does not pad its convolutions over frequency and masks nothing, so this model cannot hold its weights.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ds2_jax.config import Config, DataConfig, FeatureConfig, ModelConfig
from ds2_jax.engines.pytorch import Checkpoint, Part, name_of
from ds2_jax.engines.shapes import NUM_GATES, weight_shapes
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet

Edges = Literal["zeros", "reflected"]
Version = Literal["v2.0", "V2.1", "V3"]

BLANK = "_"
OLD_SCALE = 32768 / 32767
"""Up to V2.1, 16-bit samples were divided by 32767."""
NEW_LIBROSA = (1, 6)
"""The first version of Lightning that came out after librosa 0.9, which no longer reflects the edges."""
MAX_DEPTH, MAX_VALUES = 20, 10_000
"""Levels and number of the settings that are looked into."""
NORM = {"weight": "params.{}.scale", "bias": "params.{}.bias", "running_mean": "batch_stats.{}.mean"}
NORM["running_var"] = "batch_stats.{}.var"
IGNORED = re.compile(r".*\.num_batches_tracked|rnns\.0\.batch_norm\..*")
"""Counters, and statistics that the original deletes when it loads them."""


class Imported(NamedTuple):
    """A translated checkpoint.

    Attributes:
        version: the version of deepspeech.pytorch that wrote it.
        config: settings of features, model and alphabet.
        arrays: weights and statistics, float32, by the names of `weight_shapes`.
        edges_known: whether the file tells how the edges of recordings were treated.
    """

    version: Version
    config: Config
    arrays: dict[str, np.ndarray]
    edges_known: bool


class _Described(NamedTuple):
    """What a checkpoint says of itself."""

    version: Version
    labels: Sequence[str]
    audio: Mapping[str, Any]
    lightning: str


def translate(checkpoint: Checkpoint, path: Path, edges: Edges | None = None) -> Imported:
    """Translates a checkpoint.

    Args:
        checkpoint: the contents of the file.
        path: the file, for messages.
        edges: what the windows at both ends of a recording hear; by default what the version suggests.

    Raises:
        InputError: the file holds something else, or a model that this package cannot hold.
    """
    weights = _Weights(checkpoint, path)
    described = _describe(checkpoint.content, path)
    characters, order = _alphabet(described.labels, path)
    try:
        model, features = _model(weights, path), _features(described, edges, path)
        config = Config(data=DataConfig(alphabet=characters), features=features, model=model)
        Alphabet.of(config.data)  # checks it
    except InputError as error:  # settings do not know where they come from
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error
    arrays = _arrays(weights, config, order)
    if rest := weights.unused():
        rule = "hold the weights of DeepSpeech 2 and no others"
        raise InputError(f"{path} must {rule}, got {shorten(min(rest))}. Name another checkpoint.")
    shapes = dict(weight_shapes(config, len(order)))
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            rule = f"be {list(shapes[name])} with these settings"
            raise InputError(f"{path}: {name} must {rule}, got {list(array.shape)}. Name another checkpoint.")
        if not np.isfinite(array).all() or (name.endswith(".var") and array.min(initial=0.0) < 0):
            raise InputError(f"{path}: {name} must hold finite numbers, got others. Name another checkpoint.")
    return Imported(described.version, config, arrays, edges is not None or described.version != "V3")


class _Weights:
    """The arrays of a checkpoint by the original's names. It notes which are asked for."""

    def __init__(self, checkpoint: Checkpoint, path: Path) -> None:
        content = checkpoint.content
        found = content.get("state_dict") if isinstance(content, dict) else None
        pairs: list[tuple[Any, Any]] = []
        if isinstance(found, Part):
            # Older versions of Python gave the items of an OrderedDict to the class.
            given = found.args[0] if found.args and isinstance(found.args[0], list) else []
            pairs = [(pair[0], pair[1]) for pair in given if isinstance(pair, list) and len(pair) == 2] + found.items
        elif isinstance(found, dict):
            pairs = list(found.items())
        self._tensors = {re.sub(r"^module\.", "", name): tensor for name, tensor in pairs if isinstance(name, str)}
        if not self._tensors:
            raise _wrong(path, "a file without state_dict")
        if any(re.match(r"conv\.\d", name) for name in self._tensors):
            advice = "This package cannot hold it: its convolutions are not padded over frequency. Train a new model."
            raise InputError(f"{path} must be a checkpoint of v2.0 or later, got one of v1. {advice}")
        self._checkpoint, self._path = checkpoint, path
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns an array, float32. Raises InputError if there is none."""
        self._used.add(name)
        array = self._checkpoint.array(self._tensors.get(name))
        if array is None:
            raise _wrong(self._path, f"no array {name}")
        return array.astype(np.float32)

    def of_rank(self, name: str, rank: int) -> np.ndarray:
        """Returns an array with so many axes. Raises InputError if it is another or empty."""
        array = self[name]
        if array.ndim != rank or not array.size:
            raise _wrong(self._path, f"{name} with the sizes {list(array.shape)}")
        return array

    def unused(self) -> set[str]:
        """Lists the arrays that nobody asked for, without those that the original drops too."""
        return {name for name in self._tensors if name not in self._used and not IGNORED.fullmatch(name)}


def _wrong(path: Path, finding: str) -> InputError:
    rule = "be a checkpoint of deepspeech.pytorch, v2.0 to V3"
    return InputError(f"{path} must {rule}, got {shorten(finding)}. Name another checkpoint.")


def _describe(content: Mapping[str, Any], path: Path) -> _Described:
    if "hyper_parameters" in content:  # Lightning
        version: Version = "V3"
        lightning = content.get("pytorch-lightning_version")
        settings = _plain(content["hyper_parameters"], path)
        found = settings if isinstance(settings, dict) else {}
        labels, audio = found.get("labels"), found.get("spect_cfg")
    else:
        version, lightning = "v2.0" if isinstance(content.get("audio_conf"), dict) else "V2.1", ""
        labels, audio = (_plain(content.get(name), path) for name in ("labels", "audio_conf"))
    if not isinstance(labels, str | list) or not all(isinstance(each, str) for each in labels):
        raise _wrong(path, "no labels")
    if not isinstance(audio, dict):
        raise _wrong(path, "no settings of the spectrogram")
    return _Described(version, labels, audio, lightning if isinstance(lightning, str) else "")


def _plain(value: Any, path: Path) -> Any:
    """Turns settings into plain values: those of OmegaConf, and enumerations. Anything else is None."""
    num_values = 0

    def plain(value: Any, depth: int) -> Any:
        nonlocal num_values
        num_values += 1  # a small file can refer to one object so often that a copy would fill the memory
        if num_values > MAX_VALUES or depth > MAX_DEPTH:
            raise _wrong(path, "settings that are nested too deeply")
        if isinstance(value, Part):
            state = value.state if isinstance(value.state, dict) else {}
            if name_of(value) in ("DictConfig", "ListConfig"):
                return plain(state.get("_content"), depth + 1)
            if name_of(value) == "OrderedDict":
                return {name: plain(each, depth + 1) for name, each in value.items}
            if "_val" in state:  # a node of OmegaConf
                return plain(state["_val"], depth + 1)
            return plain(value.args[0], depth + 1) if len(value.args) == 1 else None  # a member of an enumeration
        if isinstance(value, dict):
            return {name: plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each, depth + 1) for each in value]
        return value if isinstance(value, str | int | float) else None

    return plain(value, 0)


def _model(weights: _Weights, path: Path) -> ModelConfig:
    """Finds the sizes of the model in those of its arrays."""
    first, second = (weights.of_rank(f"conv.seq_module.{place}.weight", 4) for place in (0, 3))
    units_of_gates, units = weights.of_rank("rnns.0.rnn.weight_hh_l0", 2).shape
    kinds = {gates: kind for kind, gates in NUM_GATES.items()}
    if units_of_gates % units or units_of_gates // units not in kinds:
        raise _wrong(path, f"recurrent weights of the sizes {units_of_gates} and {units}")
    num_layers = 1
    while f"rnns.{num_layers}.rnn.weight_hh_l0" in weights:
        num_layers += 1
    bidirectional = "rnns.0.rnn.weight_hh_l0_reverse" in weights
    context = 20 if bidirectional else len(_lookahead(weights))
    return ModelConfig(
        rnn_type=kinds[units_of_gates // units],  # type: ignore[arg-type]
        bidirectional=bidirectional,
        hidden_size=units,
        num_layers=num_layers,
        channels=(len(first), len(second)),
        frequency_kernels=(first.shape[2], second.shape[2]),
        time_kernels=(first.shape[3], second.shape[3]),
        lookahead_context=context,
    )


def _lookahead(weights: _Weights) -> np.ndarray:
    """Returns the weights of the lookahead convolution [K, H]."""
    if "lookahead.0.conv.weight" in weights:
        return weights.of_rank("lookahead.0.conv.weight", 3)[:, 0].T
    return weights.of_rank("lookahead.0.weight", 2).T  # before v2.0


def _features(described: _Described, edges: Edges | None, path: Path) -> FeatureConfig:
    audio = described.audio
    rate, size, stride = (_number(audio, name, path) for name in ("sample_rate", "window_size", "window_stride"))
    if not rate.is_integer():
        raise _wrong(path, f"sample_rate {rate}")
    window = audio.get("window")
    if described.version == "v2.0" and window not in ("hamming", "hann", "blackman", "bartlett"):
        window = "hamming"  # as v2.0 does
    old = described.version != "V3"
    lightning = tuple(int(each[:9]) for each in re.findall(r"\d+", described.lightning)[:2])
    return FeatureConfig(
        sample_rate=int(rate),
        window_size=size,
        window_stride=stride,
        window=window,  # type: ignore[arg-type]
        symmetric_window=described.version == "v2.0",
        edges=edges or ("reflected" if old or lightning < NEW_LIBROSA else "zeros"),
        scale=OLD_SCALE if old else 1.0,
    )


def _number(audio: Mapping[str, Any], name: str, path: Path) -> float:
    value = audio.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise _wrong(path, f"{name} {value!r}")
    return float(value)


def _alphabet(labels: Sequence[str], path: Path) -> tuple[str, list[int]]:
    """Returns the characters without the blank, and for each label of this package its place in the original."""
    if any(len(each) != 1 for each in labels) or BLANK not in labels:
        raise _wrong(path, f"labels that are not characters with the blank {BLANK}")
    order = [list(labels).index(BLANK)]
    order += [place for place in range(len(labels)) if place != order[0]]
    return "".join(labels[place] for place in order[1:]), order


def _arrays(weights: _Weights, config: Config, order: Sequence[int]) -> dict[str, np.ndarray]:
    """Collects the arrays by this package's names, in its order of axes."""
    arrays: dict[str, np.ndarray] = {}

    def norm(name: str, place: str) -> None:
        arrays.update({ours.format(name): weights[f"{place}.{theirs}"] for theirs, ours in NORM.items()})

    for i, place in enumerate((0, 3)):
        arrays[f"params.conv_{i}.kernel"] = weights.of_rank(f"conv.seq_module.{place}.weight", 4).T
        arrays[f"params.conv_{i}.bias"] = weights[f"conv.seq_module.{place}.bias"]
        norm(f"conv_norm_{i}", f"conv.seq_module.{place + 1}")
    model = config.model
    for i in range(model.num_layers):
        for direction, end in enumerate(("", "_reverse")[: 1 + model.bidirectional]):
            theirs, ours = f"rnns.{i}.rnn.{{}}_l0{end}", f"params.rnn_{i}.{{}}.{direction}"
            kernel = weights.of_rank(theirs.format("weight_ih"), 2).T  # [inputs, G*H]
            arrays[ours.format("input_kernel")] = kernel if i else _frequency_major(kernel, model.channels[1])
            hidden = weights.of_rank(theirs.format("weight_hh"), 2)
            arrays[ours.format("hidden_kernel")] = hidden
            for bias, name in (("input_bias", theirs.format("bias_ih")), ("hidden_bias", theirs.format("bias_hh"))):
                # Before July 2018, there were none.
                arrays[ours.format(bias)] = weights[name] if name in weights else np.zeros(len(hidden), np.float32)
        if i:
            norm(f"rnn_{i}.norm", f"rnns.{i}.batch_norm.module")
    if not model.bidirectional:
        arrays["params.lookahead.kernel"] = _lookahead(weights)
    norm("head_norm", "fc.0.module.0")
    head = weights.of_rank("fc.0.module.1.weight", 2).T  # [H, V]
    fits = head.shape[1] == len(order)
    arrays["params.head"] = head[:, list(order)] if fits else head  # the shape is checked later
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _frequency_major(kernel: np.ndarray, num_channels: int) -> np.ndarray:
    """Sorts the inputs [C * F', G*H] of the first recurrent layer by frequency, not by channel."""
    inputs, outputs = kernel.shape
    if inputs % num_channels:
        return kernel  # the shape is checked later
    return kernel.reshape(num_channels, -1, outputs).swapaxes(0, 1).reshape(inputs, outputs)

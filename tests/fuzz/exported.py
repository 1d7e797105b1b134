"""Fuzz targets: exported models, as graphs for ONNX Runtime, weights, and settings."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.target import Target, accepted

MEMORY = 2**27
"""Bytes that ONNX Runtime may use, instead of half of the machine's memory."""


def _use(path: Path, model_path: Path) -> None:
    """Opens and runs a model. `path` is the damaged file."""
    from ds2_jax.engines import onnx
    from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
    from ds2_jax.runs.model import open_model

    onnx.MEMORY = MEMORY
    samples = np.sin(np.arange(4000, dtype=np.float32))
    model = accepted(path, lambda: open_model(model_path, "onnx"))
    if path.name == "streaming.onnx":
        steps = accepted(path, lambda: StreamSteps(model, 2))
        slot = steps.open()
        for i in range(3):
            step = StepInput(slot, samples[: steps.samples], -1, i == 0)
            [log_probs] = accepted(model_path, lambda step=step: steps.run([step]))  # type: ignore[misc]
            assert log_probs.shape == (2, model.alphabet.size)
        return
    counts = np.array([4000, 3000], np.int32)
    log_probs, lengths = accepted(path, lambda: model.log_probs(np.stack([samples, samples]), counts))
    assert log_probs.shape[0] == 2
    assert log_probs.shape[2] == model.alphabet.size
    assert log_probs.shape[1] >= lengths[0] >= lengths[1]
    assert (log_probs <= 1e-3).all()


def _read_file(path: Path) -> None:
    _use(path, path)


def _read_step(path: Path) -> None:
    from ds2_jax import config as config_lib
    from tests.engines import hostile

    (path.parent / "config.json").write_text(config_lib.to_json(hostile.CONFIG))
    (path.parent / "model.onnx").write_bytes(hostile.whole())
    _use(path, path.parent)


def _read_settings(path: Path) -> None:
    from tests.engines import hostile

    (path.parent / "model.safetensors").write_bytes(hostile.weights())
    _use(path.parent, path.parent)


def _hostile(*names: str) -> Callable[[], Sequence[bytes]]:
    """Makes files of these kinds by hand; see `tests.engines.hostile`."""

    def make() -> Sequence[bytes]:
        from tests.engines import hostile

        return [content for name in names for content in getattr(hostile, name)().values()]

    return make


def _graph_claims() -> Sequence[bytes]:
    from tests.engines import hostile

    outside = hostile.reading_outside("/etc/passwd").values()
    settings = [hostile.with_settings(each)[0] for each in (hostile.other_settings() | hostile.other_sizes()).values()]
    return [*outside, *_hostile("foreign", "too_large", "other_values")(), *settings]


def _weight_claims() -> Sequence[bytes]:
    from tests.engines import hostile, hostile_weights

    settings = [hostile.with_settings(each)[1] for each in (hostile.other_settings() | hostile.other_sizes()).values()]
    return [*hostile_weights.other_weights().values(), *settings]


def _seeds(name: str) -> Callable[[], Sequence[bytes]]:
    def make() -> Sequence[bytes]:
        from tests.engines import hostile

        return [getattr(hostile, name)()]

    return make


def _settings() -> Sequence[bytes]:
    from ds2_jax import config as config_lib
    from tests.engines import hostile

    again = dataclasses.replace(hostile.CONFIG, seed=1)
    return [config_lib.to_json(each).encode() for each in (hostile.CONFIG, again)]


def _read_checkpoint(path: Path) -> None:
    from ds2_jax.engines import pytorch
    from ds2_jax.exchange.deepspeech_pytorch import translate

    imported = accepted(path, lambda: translate(pytorch.read(path), path))
    assert sum(array.size for array in imported.arrays.values()) < 10**6


def _checkpoints(*names: str) -> Callable[[], Sequence[bytes]]:
    def make() -> Sequence[bytes]:
        from tests.exchange import checkpoints
        from tests.golden import inputs

        case = inputs.MODEL_CASES["bidirectional_lstm"]
        return [checkpoints.CONTAINERS[name](case) for name in names]

    return make


def _hostile_checkpoints() -> Sequence[bytes]:
    from tests.exchange import hostile_checkpoints

    return [*hostile_checkpoints.all_of_them().values()]


EXPORTED = {
    "graph": Target("model.onnx", _seeds("whole"), _read_file, _graph_claims),
    "graph of a step": Target("streaming.onnx", _seeds("step"), _read_step, _hostile("foreign")),
    "weights": Target("model.safetensors", _seeds("weights"), _read_file, _weight_claims),
    "settings of weights": Target("config.json", _settings, _read_settings),
    "checkpoint": Target("model.ckpt", _checkpoints("V2.1", "V3"), _read_checkpoint, _hostile_checkpoints),
    "older checkpoint": Target("model.pth", _checkpoints("v2.0"), _read_checkpoint),
}

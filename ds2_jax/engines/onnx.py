"""Runs a model with ONNX Runtime, without JAX."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from ds2_jax.engines.onnx_file import check_graph
from ds2_jax.system.errors import InputError, shorten

STATISTICS = ("frames_before", "sums", "squares")
"""Names of the state that goes on from one recording of a stream to the next."""
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


class OnnxEngine:
    """Runs a model with ONNX Runtime; see `Engine`. Several threads may use it.

    Args:
        name: name of the model in errors.
        whole: gives the graph that `graph.whole` makes, when it is needed first.
        streaming: gives the graph that `graph.streaming` makes for a number of output frames.
    """

    compiles = False

    def __init__(self, name: str, whole: Callable[[], bytes], streaming: Callable[[int], bytes]) -> None:
        self._name, self._whole, self._streaming = name, whole, streaming

    @functools.cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        return _session(self._whole(), self._name)

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine`."""
        inputs = {"waveforms": waveforms, "num_samples": num_samples.astype(np.int64)}
        log_probs, output_lengths = _run(self._session, inputs, self._name)
        return log_probs, output_lengths

    def steps(self, num_frames: int) -> "OnnxSteps":
        """See `Engine`."""
        return OnnxSteps(_session(self._streaming(num_frames), self._name), self._name)


class OnnxSteps:
    """The states of streams, and the graph of a step; see `Steps`."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self._session, self._name = session, name
        self._state = {
            each.name: np.zeros((0, *each.shape[1:]), TYPES[each.type])
            for each in session.get_inputs()
            if each.name not in ("samples", "num_samples")
        }
        self._outputs = [each.name for each in session.get_outputs()]

    def grow(self, capacity: int) -> None:
        """See `Steps`."""
        self._state = {
            name: np.concatenate([each, np.zeros((capacity - len(each), *each.shape[1:]), each.dtype)])
            for name, each in self._state.items()
        }

    def clear(self, slot: int) -> None:
        """See `Steps`."""
        for each in self._state.values():
            each[slot] = 0

    def run(self, slots: np.ndarray, samples: np.ndarray, num_samples: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """See `Steps`."""
        inputs = {name: each[slots] for name, each in self._state.items()}
        for name in inputs.keys() - set(STATISTICS):
            inputs[name][begins] = 0
        inputs |= {"samples": samples, "num_samples": num_samples.astype(np.int64)}
        outputs = dict(zip(self._outputs, _run(self._session, inputs, self._name), strict=True))
        for name, each in self._state.items():
            each[slots] = outputs[f"next_{name}"]
        log_probs: np.ndarray = outputs["log_probs"]
        return log_probs


def _session(model: bytes, name: str) -> onnxruntime.InferenceSession:
    check_graph(model, name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise _refused(name, error) from error


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], name: str) -> list[Any]:
    try:
        outputs: list[Any] = session.run(None, inputs)
    except Exception as error:
        raise _refused(name, error) from error
    return outputs


def _refused(name: str, error: Exception) -> InputError:
    reason = shorten(" ".join(str(error).split()), 300).rstrip(".")
    return InputError(f"{name} must be a model that ONNX Runtime can run, got: {reason}. Export it again.")

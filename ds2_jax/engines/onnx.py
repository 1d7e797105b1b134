"""Runs a model with ONNX Runtime, without JAX."""

import functools
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from ds2_jax.config import Config
from ds2_jax.config.live import delays, stream_state
from ds2_jax.engines.onnx_file import check_graph
from ds2_jax.system.errors import InputError, shorten

STATISTICS = ("frames_before", "sums", "squares")
"""Names of the state that goes on from one recording of a stream to the next."""
TYPES = {np.float32: "tensor(float)", np.float64: "tensor(double)", np.int64: "tensor(int64)"}
MEMORY = max(2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2) if hasattr(os, "sysconf") else 2**33
"""Bytes that a model may use, half of this machine's memory. A graph from elsewhere could ask for any number."""

Values = dict[str, tuple[tuple[int | None, ...], Any]]
"""Shape and type of the inputs or outputs of a graph by name. None is any number."""

UNSAFE = ["ConstantFolding", "GatherSliceToSplitFusion"]
"""Optimisers that take memory before a graph runs: for huge constants, and for each place of an axis that is sliced.
Without them our graphs are as fast."""

_ARENA = threading.Lock()
"""Held from setting the memory of the next session until that session is made."""


class OnnxEngine:
    """Runs a model with ONNX Runtime; see `Engine`. Several threads may use it.

    Args:
        name: name of the model in errors.
        config: settings of the run.
        num_labels: number of labels, blank included (V).
        whole: gives the graph that `onnx_graph.whole` makes, when it is needed first.
        streaming: gives the graph that `graph.streaming` makes for a number of output frames.
        step_name: name of that graph in errors; by default `name`.
        num_threads: threads that share a batch; 0: one for each core.
    """

    compiles = False

    def __init__(
        self,
        name: str,
        config: Config,
        num_labels: int,
        whole: Callable[[], bytes],
        streaming: Callable[[int], bytes],
        step_name: str = "",
        num_threads: int = 0,
    ) -> None:
        self._step_name = step_name or name
        self._num_threads, self._opening = num_threads, threading.Lock()
        self._name, self._config, self._num_labels = name, config, num_labels
        self._whole, self._streaming = whole, streaming

    @functools.cached_property
    def one_core(self) -> "OnnxEngine":
        """See `Engine`."""
        return OnnxEngine(
            self._name, self._config, self._num_labels, self._whole, self._streaming, self._step_name, num_threads=1
        )

    @functools.cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        inputs: Values = {"waveforms": ((None, None), np.float32), "num_samples": ((None,), np.int64)}
        outputs: Values = {
            "log_probs": ((None, None, self._num_labels), np.float32),
            "output_lengths": ((None,), np.int64),
        }
        return _session(self._whole(), self._name, inputs, outputs, self._num_threads)

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine`."""
        inputs = {"waveforms": waveforms, "num_samples": num_samples.astype(np.int64)}
        with self._opening:  # several threads may bring the first batches
            session = self._session
        log_probs, output_lengths = _run(session, ["log_probs", "output_lengths"], inputs, self._name)
        return log_probs, output_lengths

    def steps(self, num_frames: int) -> "OnnxSteps":
        """See `Engine`."""
        return OnnxSteps(self._streaming(num_frames), self._step_name, self._config, self._num_labels, num_frames)


class OnnxSteps:
    """The states of streams, and the graph of a step; see `Steps`."""

    def __init__(self, graph: bytes, name: str, config: Config, num_labels: int, num_frames: int) -> None:
        num_samples = delays(config, num_frames).frames * config.features.hop_length
        shapes = stream_state(config)
        state: Values = {each: ((None, *shape), dtype) for each, (shape, dtype) in shapes.items()}
        inputs = {"samples": ((None, num_samples), np.float32), "num_samples": ((None,), np.int64), **state}
        outputs: Values = {"log_probs": ((None, num_frames, num_labels), np.float32)}
        outputs |= {f"next_{each}": value for each, value in state.items()}
        size = sum(math.prod(shape) for shape, _ in shapes.values())
        if size > len(graph):  # the weights of the same units are longer
            raise InputError(f"{name} must keep less between two steps than its weights, got {size} numbers.")
        self._name = name
        self._session = _session(graph, name, inputs, outputs)
        self._state = {each: np.zeros((0, *shape), dtype) for each, (shape, dtype) in shapes.items()}

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
        state = dict(inputs)
        inputs |= {"samples": samples, "num_samples": num_samples.astype(np.int64)}
        names = [f"next_{name}" for name in state]
        log_probs, *after = _run(self._session, ["log_probs", *names], inputs, self._name)
        for (name, before), new in zip(state.items(), after, strict=True):
            if new.shape != before.shape or new.dtype != before.dtype:
                raise _other_values(self._name, f"next_{name} {list(new.shape)} {new.dtype}")
            self._state[name][slots] = new
        return np.asarray(log_probs)


def _session(
    graph: bytes, name: str, inputs: Values, outputs: Values, num_threads: int = 0
) -> onnxruntime.InferenceSession:
    """Opens a graph with no more than `MEMORY`, and checks what it takes and gives; 0 threads: one for each core."""
    check_graph(graph, name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry(
        "session.load_model_format", "ONNX"
    )  # no other format, whatever the file begins with
    options.add_session_config_entry("session.use_env_allocators", "1")
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    try:
        with _ARENA:  # a session keeps the allocator that is registered last when it is made, so each has its own
            onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": MEMORY}))
            session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=UNSAFE,
            )
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise _refused(name, error) from error
    for found, expected in ((session.get_inputs(), inputs), (session.get_outputs(), outputs)):
        _check_values(found, expected, name)
    return session


def _check_values(found: list[Any], expected: Values, name: str) -> None:
    for each in found:
        shape, dtype = expected.get(each.name, ((), None))
        sizes = zip(each.shape, shape, strict=False)
        fits = len(each.shape) == len(shape) and not any(
            isinstance(size, int) and size != wanted for size, wanted in sizes
        )
        if dtype is None or each.type != TYPES[dtype] or not fits:
            raise _other_values(name, f"{each.name} {each.shape} {each.type}")
    if missing := expected.keys() - {each.name for each in found}:
        raise _other_values(name, f"none named {min(missing)}")


def _other_values(name: str, got: str) -> InputError:
    return InputError(
        f"{name} must have the inputs and outputs that `export` writes without --for, got {shorten(got)}. Give such a "
        "folder or its model.onnx, or export the model again."
    )


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str], inputs: dict[str, np.ndarray], name: str
) -> list[Any]:
    try:
        found: list[Any] = session.run(outputs, inputs)
    except Exception as error:
        raise _refused(name, error) from error
    return found


def _refused(name: str, error: Exception) -> InputError:
    reason = shorten(" ".join(str(error).split()), 300).rstrip(".")
    if "Available memory of" in reason:
        return InputError(
            f"{name} must run in {MEMORY / 2**30:.1f} GiB, half of this machine's memory, got a larger request. "
            "Give shorter or fewer recordings at once, or use another model."
        )
    return InputError(f"{name} must be a model that ONNX Runtime can run, got: {reason}. Export it again.")

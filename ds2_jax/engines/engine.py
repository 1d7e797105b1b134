"""What every engine does: turns waveforms into log-probabilities, of whole utterances and of streams."""

from typing import Literal, Protocol

import numpy as np

EngineName = Literal["onnx", "jax"]
"""onnx: ONNX Runtime, the fastest on a CPU. jax: JAX, for accelerators, and the reference."""


class Steps(Protocol):
    """Runs a model that can stream, step by step, on many streams at once. A stream's state lies in a slot."""

    def grow(self, capacity: int) -> None:
        """Makes room for so many streams; those that there are stay in their slots."""

    def clear(self, slot: int) -> None:
        """Empties a slot, for a new stream."""

    def run(self, slots: np.ndarray, samples: np.ndarray, num_samples: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """Makes one step of each stream.

        Args:
            slots: [B] int32, the slot of each stream, no two the same.
            samples: [B, S] float32, the next samples of segments, followed by zeros after their ends.
            num_samples: [B] int32, number of samples of the segment, or -1 while its end is not known.
            begins: [B] bool, whether a segment begins with these samples. Statistics of the features go on from the one
                before.

        Returns:
            [B, T', V] float32, log-probabilities; see `model.streaming.step`.
        """
        ...


class Engine(Protocol):
    """Runs a model.

    Attributes:
        compiles: whether each new shape takes a compilation, so that few shapes should be used.
    """

    compiles: bool

    @property
    def one_core(self) -> "Engine | None":
        """Runs the same model on one core. Several batches take less time if as many threads use it at once.

        None: a batch keeps all cores busy.
        """
        ...

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the log-probabilities of waveforms. No row affects another.

        Args:
            waveforms: [B, S] float32, samples in [-1, 1].
            num_samples: [B] int32, valid samples.

        Returns:
            log_probs [B, T', V] float32, natural logarithms, and output_lengths [B], valid frames.
        """
        ...

    def steps(self, num_frames: int) -> Steps:
        """Prepares steps of so many output frames, for a model that can stream."""
        ...

"""Runs the model on many streams at once, each at its own place."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.config.live import delays
from ds2_jax.runs.model import Model

FIRST_CAPACITY = 16


class StepInput(NamedTuple):
    """The next step of a stream.

    Attributes:
        slot: the stream's place.
        samples: [S] float32, the next samples of a segment, followed by zeros after its end.
        num_samples: number of samples of the segment, or -1 while its end is not known.
        begins: whether the segment begins with these samples. Statistics of the features go on from the one before.
    """

    slot: int
    samples: np.ndarray
    num_samples: int
    begins: bool


class StreamSteps:
    """The places of streams, and the step of the model.

    Args:
        model: a model that can stream.
        num_frames: output frames of a step.
    """

    def __init__(self, model: Model, num_frames: int) -> None:
        self.config, self.frames = model.config, num_frames
        features = model.config.features
        self.samples = self.frames * model.config.model.time_reduction * features.hop_length
        """Samples of a step."""
        self.delay = delays(model.config, self.frames).output
        self._model, self._steps = model, model.steps(num_frames)
        self.capacity = FIRST_CAPACITY
        """Number of streams for which there is a place."""
        self._steps.grow(self.capacity)
        self._free = list(range(self.capacity))[::-1]
        self._lock = threading.Lock()

    def open(self) -> int:
        """Gives a place to a new stream."""
        with self._lock:
            if not self._free:
                self._free = list(range(self.capacity, 2 * self.capacity))[::-1]
                self.capacity *= 2
                self._steps.grow(self.capacity)
            slot = self._free.pop()
            self._steps.clear(slot)
            return slot

    def close(self, slot: int) -> None:
        """Takes back the place of a stream."""
        with self._lock:
            self._free.append(slot)

    def num_steps(self, num_samples: int) -> int:
        """Returns after how many steps all output frames of a recording have been given."""
        num_frames = self.num_frames(num_samples)
        return -(-(num_frames + self.delay) // self.frames) if num_frames else 0

    def num_frames(self, num_samples: int) -> int:
        """Returns the number of output frames of a recording."""
        frames = count_frames(num_samples, self.config.features.hop_length)
        return conv_output_lengths(frames, self.config.model.time_reduction)

    def run(self, inputs: Sequence[StepInput]) -> list[np.ndarray]:
        """Makes one step of each stream; a stream may be named once.

        Returns:
            [T', V] float32 for each, log-probabilities of T' = `frames` output frames, of which the first is
            `delay` frames before the first of these samples.

        Raises:
            InputError: see `Model.check`.
        """
        slots, samples, num_samples, begins = zip(*inputs, strict=True)
        with self._lock:
            log_probs = self._steps.run(
                np.array(slots, np.int32), np.stack(samples), np.array(num_samples, np.int32), np.array(begins)
            )
        self._model.check(log_probs, len(inputs), self.frames)
        return list(log_probs)

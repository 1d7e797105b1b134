"""Runs the model on many streams at once, each at its own place."""

import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.model import streaming
from ds2_jax.model.streaming import StreamState
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.compilation import compiler_options

BATCH_SIZES = (1, 4, 16, 64, 256)
"""Rows of a step. Each size is compiled once."""
FIRST_CAPACITY = 16


class StepInput(NamedTuple):
    """The next step of a stream.

    Attributes:
        slot: the stream's place.
        samples: [S] float32, the next samples of a recording, or of a part of it that is recognised on its own; zeros
            behind its end.
        num_samples: all samples of the recording, or -1 while its end is not known.
        begins: whether it begins with these samples. The statistics of the stream go on.
    """

    slot: int
    samples: np.ndarray
    num_samples: int
    begins: bool


class StreamSteps:
    """The states of streams, and the compiled step.

    Args:
        model: a model that can stream.
        num_frames: output frames of a step.
    """

    def __init__(self, model: TrainedModel, num_frames: int) -> None:
        self.config, self.frames = model.config, num_frames
        features = model.config.features
        self.samples = self.frames * model.config.model.time_reduction * features.hop_length
        """Samples of a step."""
        self.delay = streaming.delays(model.config, self.frames).output
        self._variables = model.variables
        self._states = streaming.start(model.config, FIRST_CAPACITY + 1)  # the last row takes what nobody needs
        self._free = list(range(FIRST_CAPACITY))[::-1]
        self._lock = threading.Lock()
        options: dict[str, Any] = {"compiler_options": compiler_options(), "donate_argnums": (1,)}
        self._step = jax.jit(functools.partial(_step, config=model.config), **options)

    @property
    def capacity(self) -> int:
        """Number of streams for which there is a place."""
        return len(self._states.steps) - 1

    def open(self) -> int:
        """Gives a place to a new stream."""
        with self._lock:
            if not self._free:
                old = self.capacity
                more = streaming.start(self.config, old)
                self._states = jax.tree.map(lambda a, b: jnp.concatenate([a[:old], b, a[old:]]), self._states, more)
                self._free = list(range(old, 2 * old))[::-1]
            slot = self._free.pop()
            fresh = streaming.start(self.config, 1)
            self._states = jax.tree.map(lambda all_, new: all_.at[slot].set(new[0]), self._states, fresh)
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
        """
        results: list[np.ndarray] = []
        with self._lock:
            while len(results) < len(inputs):
                rest = len(inputs) - len(results)
                size = next((each for each in BATCH_SIZES if each >= rest), BATCH_SIZES[-1])
                part = inputs[len(results) : len(results) + size]
                slots = np.full(size, self.capacity, np.int32)
                samples = np.zeros((size, self.samples), np.float32)
                num_samples, begins = np.full(size, -1, np.int32), np.zeros(size, bool)
                for row, each in enumerate(part):
                    slots[row], samples[row], num_samples[row], begins[row] = each
                self._states, log_probs = self._step(self._variables, self._states, slots, samples, num_samples, begins)
                results.extend(np.asarray(log_probs)[: len(part)])
        return results


def _step(
    variables: Any,
    states: StreamState,
    slots: jax.Array,
    samples: jax.Array,
    num_samples: jax.Array,
    begins: jax.Array,
    *,
    config: Config,
) -> tuple[StreamState, jax.Array]:
    """Makes a step of the streams at `slots`, [B] int32."""
    own = jax.tree.map(lambda each: each[slots], states)
    fresh = streaming.start(config, len(slots))._replace(sums=own.sums)

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(begins.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

    own, log_probs = streaming.step(variables, jax.tree.map(choose, fresh, own), samples, num_samples, config=config)
    return jax.tree.map(lambda all_, new: all_.at[slots].set(new), states, own), log_probs

"""Runs a model with JAX: on an accelerator, and as the reference of the other engines."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.config import Config
from ds2_jax.model import streaming
from ds2_jax.model.inference import infer
from ds2_jax.model.streaming import StreamState
from ds2_jax.system.compilation import compiler_options

BATCH_SIZES = (1, 4, 16, 64, 256)
"""Rows of a step. Each size is compiled once."""


class JaxEngine:
    """Runs a model with JAX; see `Engine`. Each new shape is compiled once.

    Args:
        config: settings of the run.
        variables: params and batch_stats.
        num_labels: number of labels, blank included.
    """

    compiles = True
    one_core = None

    def __init__(self, config: Config, variables: Any, num_labels: int) -> None:
        self._config, self._variables = config, variables
        run = functools.partial(_log_probs, config=config, num_labels=num_labels)
        self._log_probs = jax.jit(run, compiler_options=compiler_options())

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine`."""
        log_probs, output_lengths = self._log_probs(self._variables, waveforms, num_samples)
        return np.asarray(log_probs), np.asarray(output_lengths)

    def steps(self, num_frames: int) -> "JaxSteps":  # noqa: ARG002 - the step has the length of its samples
        """See `Engine`."""
        return JaxSteps(self._config, self._variables)


class JaxSteps:
    """The states of streams on the device, and the compiled step; see `Steps`."""

    def __init__(self, config: Config, variables: Any) -> None:
        self._config, self._variables = config, variables
        self._states = streaming.start(config, 1)  # the last row takes what nobody needs
        options: dict[str, Any] = {"compiler_options": compiler_options(), "donate_argnums": (1,)}
        self._step = jax.jit(functools.partial(_step, config=config), **options)

    def grow(self, capacity: int) -> None:
        """See `Steps`."""
        old = len(self._states.steps) - 1
        more = streaming.start(self._config, capacity - old)
        self._states = jax.tree.map(lambda a, b: jnp.concatenate([a[:old], b, a[old:]]), self._states, more)

    def clear(self, slot: int) -> None:
        """See `Steps`."""
        fresh = streaming.start(self._config, 1)
        self._states = jax.tree.map(lambda all_, new: all_.at[slot].set(new[0]), self._states, fresh)

    def run(self, slots: np.ndarray, samples: np.ndarray, num_samples: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """See `Steps`."""
        parts = []
        for first in range(0, len(slots), BATCH_SIZES[-1]):
            rows = slice(first, first + BATCH_SIZES[-1])
            number = len(slots[rows])
            missing = next(size for size in BATCH_SIZES if size >= number) - number
            padded = (
                np.pad(slots[rows], (0, missing), constant_values=len(self._states.steps) - 1),
                np.pad(samples[rows], ((0, missing), (0, 0))),
                np.pad(num_samples[rows], (0, missing), constant_values=-1),
                np.pad(begins[rows], (0, missing)),
            )
            self._states, log_probs = self._step(self._variables, self._states, *padded)
            parts.append(np.asarray(log_probs)[:number])
        return np.concatenate(parts)


def _log_probs(
    variables: Any, waveforms: jax.Array, num_samples: jax.Array, **settings: Any
) -> tuple[jax.Array, jax.Array]:
    logits, output_lengths = infer(variables, waveforms, num_samples, **settings)
    return jax.nn.log_softmax(logits), output_lengths


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

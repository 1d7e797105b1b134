"""Watches over training at no measurable cost: settings, steps that do not end or that compile again, and results."""

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from ds2_jax.config import Config
from ds2_jax.evaluation.results import Evaluation

logger = logging.getLogger(__package__)


COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's event for a program that it compiled or loaded from the cache."""
LITTLE_LEARNT = {"wer": 0.95, "cer": 0.5}
"""A model with at least these error rates has learnt little. The WER alone says little if the alphabet has no space."""


def doubts(config: Config, num_steps: int) -> list[str]:
    """Lists settings that are allowed but probably not meant; `num_steps` are the steps of an epoch."""
    total, warmup = num_steps * config.epochs, config.optim.warmup_steps
    found = []
    if warmup > total:
        found.append(
            f"optim.warmup_steps is {warmup:,}, but the training has {total:,} steps: the learning rate rises to "
            f"{total / warmup:.0%} of its peak and never falls. Lower --optim.warmup-steps, or raise --epochs."
        )
    return found


def disappointments(**splits: Evaluation | None) -> list[str]:
    """Lists what is wrong with a trained model, by its evaluation on the first of the splits that has words."""
    for name, evaluation in splits.items():
        if evaluation is not None and evaluation.words.reference_length:
            rates = evaluation.rates
            if all(rates[rate] >= least for rate, least in LITTLE_LEARNT.items()):
                shown = ", ".join(f"{rate.upper()} {rates[rate]:.0%}" for rate in LITTLE_LEARNT)
                section = '"A model that learns nothing" in docs/training.md'
                return [f"the model has learnt little ({shown} on {name}): see {section}"]
            break
    return []


class RecompilationAlarm:
    """Logs when the training step compiles although it should not; a context manager.

    The step should not compile for a shape that it has seen, nor at all after the warm-up. The warm-up ends with the
    first complete epoch, because every epoch has batches of all shapes.

    Args:
        step: updates made so far.
        steps_per_epoch: steps of an epoch.
    """

    def __init__(self, step: int, steps_per_epoch: int) -> None:
        self._step = step
        self._warm_after = (-(-step // steps_per_epoch) + 1) * steps_per_epoch
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._watched_thread: int | None = None
        self._seconds = 0.0

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def watch(self, train_step: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a training step (state, batch, epoch, ...) so that its compilations are seen.

        Args:
            train_step: the step; each call counts as an update.

        Returns:
            A function with the same arguments and results.
        """

        def step(state: Any, batch: Mapping[str, np.ndarray], epoch: jax.Array, *others: Any) -> Any:
            self._step += 1
            self._watched_thread = threading.get_ident()
            try:
                made = train_step(state, batch, epoch, *others)
            finally:
                self._watched_thread = None
            self._check(batch, epoch)
            return made

        return step

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        # Other programs (evaluation, a save in its thread) also compile. Names cannot tell them from the step, because
        # pmap calls every program "_fun".
        if event == COMPILED and threading.get_ident() == self._watched_thread:
            self._seconds += duration_secs

    def _check(self, batch: Mapping[str, np.ndarray], epoch: jax.Array) -> None:
        shapes = tuple(value.shape for value in batch.values())
        known = shapes in self._shapes
        self._shapes.add(shapes)
        if not self._seconds:
            return
        seconds, self._seconds = self._seconds, 0.0
        if not known and self._step <= self._warm_after:
            return
        sizes = ", ".join(f"{name} {' x '.join(f'{n:,}' for n in value.shape)}" for name, value in batch.items())
        reason = (
            "although it was compiled for this shape before: a type, a device or another argument has changed"
            if known
            else "because no batch had this shape before the end of the first whole epoch"
        )
        logger.info(
            f"compiled again at step {self._step} (epoch {int(epoch) + 1}) in {seconds:.1f} s, for {sizes}, {reason}"
        )

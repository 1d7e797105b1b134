"""Warns of doubtful settings, of steps that compile again, and of training that goes wrong, at no measurable cost."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
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

ALARM_STEPS = 500
"""Updates after which a model should have begun to write. With CTC it writes only blanks for some hundred."""
LITTLE_WRITTEN = 0.02
"""A model that writes fewer characters than this share of those that were said writes almost nothing."""
STILL_EPOCHS, STILL_SHARE, STILL_LOSS = 4, 0.01, 0.7
"""The training loss stands still if over STILL_EPOCHS epochs it varied by less than STILL_SHARE of the first epoch's
loss, is above STILL_LOSS times that loss, and the dev error rates are high. A low loss may be flat at the end."""
WORSE_EPOCHS, WORSE_DEV, BETTER_TRAIN = 5, 1.2, 0.8
"""A model overfits if its dev WER was lowest at least WORSE_EPOCHS epochs ago, and if since the epoch of the lowest dev
loss the dev loss became more than WORSE_DEV times as large and the training loss fell below BETTER_TRAIN times its
value."""


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


def alarms(epochs: Sequence[Mapping[str, Any]], dev: Evaluation) -> dict[str, str]:
    """Finds what goes wrong in a training, by kind. Each names the section of docs/training.md that says what to try.

    Args:
        epochs: the lines of metrics.jsonl for the epochs so far; those of older versions may lack losses.
        dev: the evaluation of the dev split after the last epoch; without results if there is no dev split.
    """
    found: dict[str, str] = {}
    if not epochs or epochs[-1]["step"] < ALARM_STEPS:
        return found
    step, characters = epochs[-1]["step"], dev.characters(spaces=False)
    written = characters.reference_length - characters.deletions + characters.insertions
    if written < LITTLE_WRITTEN * characters.reference_length:
        what = f"the model writes almost nothing after {step:,} updates"
        section = _section("A model that learns nothing")
        found["blank"] = f"{what}: {written:,} characters where dev has {characters.reference_length:,}; {section}"
    losses = [line["train_loss"] for line in epochs if "train_loss" in line]
    last = losses[-STILL_EPOCHS:]
    if (
        (disappointments(dev=dev) or not dev.words.reference_length)  # fine-tuning begins with a low loss
        and len(losses) > STILL_EPOCHS
        and max(last) - min(last) < STILL_SHARE * losses[0]
        and last[-1] > STILL_LOSS * losses[0]
    ):
        what = f"the training loss has not moved for {STILL_EPOCHS} epochs"
        section = _section("A model that learns nothing")
        found["still"] = f"{what}: {last[0]:.2f} to {last[-1]:.2f}, and {losses[0]:.2f} in the first; {section}"
    whole = [line for line in epochs if line.keys() >= {"train_loss", "dev_loss", "dev_wer"}]
    if len(whole) > WORSE_EPOCHS:
        best, lowest = (min(whole, key=lambda line: line[name]) for name in ("dev_wer", "dev_loss"))
        old = len(whole) - 1 - whole.index(best) >= WORSE_EPOCHS
        worse = whole[-1]["dev_loss"] > WORSE_DEV * lowest["dev_loss"]
        if old and worse and whole[-1]["train_loss"] < BETTER_TRAIN * lowest["train_loss"]:
            found["overfitting"] = (
                f"dev gets worse while train gets better: since epoch {lowest['epoch']} the dev loss rose from "
                f"{lowest['dev_loss']:.2f} to {whole[-1]['dev_loss']:.2f} and the training loss fell from "
                f"{lowest['train_loss']:.2f} to {whole[-1]['train_loss']:.2f}; the lowest dev WER, "
                f"{best['dev_wer']:.2%}, is of epoch {best['epoch']}; {_section('A model that overfits')}"
            )
    return found


def _section(title: str) -> str:
    return f'see "{title}" in docs/training.md'


def disappointments(**splits: Evaluation | None) -> list[str]:
    """Lists what is wrong with a trained model, by its evaluation on the first of the splits that has words."""
    for name, evaluation in splits.items():
        if evaluation is not None and evaluation.words.reference_length:
            rates = evaluation.rates
            if all(rates[rate] >= least for rate, least in LITTLE_LEARNT.items()):
                shown = ", ".join(f"{rate.upper()} {rates[rate]:.0%}" for rate in LITTLE_LEARNT)
                section = _section("A model that learns nothing")
                return [f"the model has learnt little ({shown} on {name}): {section}"]
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

"""Makes the updates of an epoch: reads metrics one step late, saves, and stops if a loss or gradient is not finite."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.data.manifest import Utterance
from ds2_jax.model.update import TrainState
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.training.progress import MetricLog, Progress
from ds2_jax.training.replay.batch_file import FailedStep, replay_hint, write_batch
from ds2_jax.training.saving import Saver
from ds2_jax.training.watchdog import Watchdog


class Update(NamedTuple):
    """A finished training step.

    Attributes:
        step: updates made in the run, including this one.
        metrics: metrics of the step, on the devices.
        signal: the largest request of all processes (`Saver.asked`), on the devices.
        learning_rate: [] float32, on a device.
        batch: rows of this process.
    """

    step: int
    metrics: Mapping[str, jax.Array]
    signal: jax.Array
    learning_rate: jax.Array
    batch: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Updates:
    """Makes the updates of a run.

    Attributes:
        train_step: compiled by `parallel_train_step`.
        arguments: gives the other arguments of a step, from `step_arguments`.
        num_steps: steps of an epoch.
        utterances: utterances of the training split.
        run: folder of the run.
        saver: decides when to save.
        log: writes the metrics of every step.
        progress: shows the metrics of every step.
        watchdog: is reset after every step.
    """

    train_step: Callable[..., Any]
    arguments: Callable[[int], dict[str, jax.Array]]
    num_steps: int
    utterances: Sequence[Utterance]
    run: Path
    saver: Saver
    log: MetricLog
    progress: Progress
    watchdog: Watchdog

    def make(self, state: TrainState, batches: Iterable[dict[str, np.ndarray]], epoch: int) -> TrainState:
        """Makes the remaining updates of an epoch.

        The metrics of a step are fetched while the next step runs, so that the device never waits for the host.

        Args:
            state: state at the start of the epoch or within it; its memory is reused.
            batches: remaining batches of the epoch.
            epoch: counted from 0.

        Returns:
            The state after the last update.

        Raises:
            InputError: a loss or its gradient is not finite, or a save fails.
            Stopped: a signal asked training to stop; the state is saved.
        """
        step = int(state.step)
        last: Update | None = None
        for batch in batches:
            given = self.arguments(step)
            state, metrics, signal = self.train_step(state, batch, jnp.int32(epoch), self.saver.asked(), given)
            step += 1
            told = 0
            if last is not None:
                self._finish(last, state, epoch)
                told = int(last.signal)
            last = Update(step, metrics, signal, given["learning_rate"], batch)
            asked = self.saver.agreed(told)
            if self.saver.due(asked, step - epoch * self.num_steps):
                self._finish(last, state, epoch)
                last = None
                self.saver.save(state, asked)
        if last is not None:
            self._finish(last, state, epoch)
        return state

    def _finish(self, update: Update, state: TrainState, epoch: int) -> None:
        """Checks and logs the metrics of a step; `state` is the newest state."""
        values = {name: float(value) for name, value in update.metrics.items()}
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            raise self._not_finite(update, values, state, epoch)
        self.watchdog.beat(f"in epoch {epoch + 1}, after step {update.step}")
        interrupts.begin()
        self.saver.check_place()
        num_rows, padded_samples = update.batch["waveforms"].shape
        values |= {"num_rows": num_rows * jax.process_count(), "padded_samples": padded_samples}
        values["learning_rate"] = float(update.learning_rate)
        self.progress.step(values)
        self.log.write(update.step, {"epoch": epoch + 1, **values, "hours_per_hour": self.progress.speed})

    def _not_finite(self, update: Update, values: Mapping[str, float], state: TrainState, epoch: int) -> InputError:
        """Saves the failed batch and the state before it, and returns the error. A failed step changes no state."""
        failed = FailedStep.met(update.step, epoch, values, update.batch, self.utterances, self.num_steps)
        names = ", ".join(filter(None, failed.ids))
        try:
            self.saver.save_last(state)
            kept = replay_hint(write_batch(self.run, failed))
        except InputError as error:  # reported together with the loss
            kept = f"The step cannot be saved for replay: {error}"
        return InputError(
            f"The loss and its gradient must be finite, got a loss of {values['loss']} and a gradient norm of "
            f"{values['grad_norm']} at step {update.step}, epoch {epoch + 1}, utterances {names}. {kept} "
            "Correct these recordings, or start anew (--workdir or --overwrite) with a lower optim.learning_rate or "
            "optim.clip_norm."
        )

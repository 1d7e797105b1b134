"""Decides when training saves a checkpoint: on a signal (then it also stops), or after some minutes or steps."""

import time
from collections.abc import Callable

import jax

from ds2_jax.config import CheckpointConfig
from ds2_jax.model.update import TrainState
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system import interrupts

SAVE = 1
"""Request of a process to all processes: save. A larger request is SAVE plus the number of a signal: save and stop."""


class Saver:
    """Saves states within and after epochs.

    Args:
        checkpoints: checkpoints of the run.
        config: settings that say when to save.
        check_place: raises InputError if the run's folder is gone.
    """

    def __init__(self, checkpoints: Checkpoints, config: CheckpointConfig, check_place: Callable[[], None]) -> None:
        self._checkpoints, self._config, self.check_place = checkpoints, config, check_place
        self._saved = time.monotonic()

    def asked(self) -> int:
        """Returns the request of this process: 0 (none), SAVE, or SAVE plus the number of a signal."""
        minutes = self._config.every_minutes
        late = minutes > 0 and time.monotonic() - self._saved > 60 * minutes
        number = interrupts.requested()
        return SAVE + number if number or late else 0

    def agreed(self, told: int) -> int:
        """Returns the request of all processes.

        With several processes it is `told`, their request of the step before. With one process it is the request of
        that process, without delay.
        """
        return told if jax.process_count() > 1 else self.asked()

    def due(self, asked: int, steps_made: int) -> bool:
        """Whether a save is due.

        Args:
            asked: request of all processes; any value but 0 asks for a save.
            steps_made: steps made in this epoch; a save is due at every multiple of checkpoint.every_steps.
        """
        return asked > 0 or (self._config.every_steps > 0 and steps_made % self._config.every_steps == 0)

    def save(self, state: TrainState, asked: int = 0) -> None:
        """Begins to save a state, and stops training if a signal asks for it.

        Raises:
            InputError: the state cannot be saved, or the run's folder is gone.
            Stopped: `asked` includes the number of a signal; the state is on disk.
        """
        self.check_place()
        self._checkpoints.save(state)
        self._saved = time.monotonic()
        if asked > SAVE:
            self._checkpoints.wait()
            raise interrupts.Stopped(asked - SAVE)

    def save_last(self, state: TrainState) -> None:
        """Saves the last state before training ends with an error, and waits until it is on disk.

        Raises:
            InputError: the state cannot be saved, or the run's folder is gone.
        """
        self.save(state)
        self._checkpoints.wait()

"""When training saves within an epoch, and whether it stops then: asked by a signal, the clock, the count of steps."""

import time
from collections.abc import Callable

import jax

from ds2_jax.config import CheckpointConfig
from ds2_jax.model.update import TrainState
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system import interrupts

SAVE = 1
"""What a process asks of all: to save; the number of a signal, which is larger, asks to stop as well."""


class Saver:
    """Saves states within and after epochs.

    Args:
        checkpoints: of the run.
        config: when to save.
        check_place: raises where the run's folder is gone.
    """

    def __init__(self, checkpoints: Checkpoints, config: CheckpointConfig, check_place: Callable[[], None]) -> None:
        self._checkpoints, self._config, self.check_place = checkpoints, config, check_place
        self._saved = time.monotonic()

    def asked(self) -> int:
        """What this process asks for: 0, SAVE or the number of a signal."""
        minutes = self._config.every_minutes
        late = minutes > 0 and time.monotonic() - self._saved > 60 * minutes
        return interrupts.requested() or (SAVE if late else 0)

    def agreed(self, told: int) -> int:
        """The request of all processes, `told` to each of them one step late. With one process it is its own."""
        return told if jax.process_count() > 1 else self.asked()

    def due(self, asked: int, steps_made: int) -> bool:
        """Whether a save is due: `asked` for, or `steps_made` of an epoch are a multiple of checkpoint.every_steps."""
        return asked > 0 or (self._config.every_steps > 0 and steps_made % self._config.every_steps == 0)

    def save(self, state: TrainState, asked: int = 0) -> None:
        """Begins to save a state.

        Raises:
            InputError: it cannot be saved.
            Stopped: a signal was `asked`; the state is on disk.
        """
        self.check_place()
        self._checkpoints.save(state)
        self._saved = time.monotonic()
        if asked > SAVE:
            self._checkpoints.wait()
            raise interrupts.Stopped(asked)

    def save_last(self, state: TrainState) -> None:
        """Saves a state with which training ends, and waits for it; errors as of `save`."""
        self.save(state)
        self._checkpoints.wait()

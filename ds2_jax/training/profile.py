"""--profile FIRST:LAST: records the work of host and device in these training steps, for TensorBoard and Perfetto."""

import contextlib
import itertools
import logging
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from ds2_jax.system.errors import InputError, shorten

logger = logging.getLogger(__package__)


FOLDER = "profile"
TRACE = "plugins/profile/*/perfetto_trace.json.gz"
"""JAX's path of a trace, in a folder named after the time."""


def steps_of(text: str) -> range:
    """Parses FIRST:LAST into a range of steps that includes both; the first update of a run is step 1.

    Raises:
        InputError: `text` has another form.
    """
    found = re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", text)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(
            f"--profile must be FIRST:LAST, the first and last step to record (1 or more), got {shorten(text)!r}. "
            "Try 10:20."
        )
    return range(first, last + 1)


class Profile:
    """Records training steps in the first process; a context manager. It does nothing if `steps` is None.

    It writes the recording after the last of the steps, or when training ends before that. Recorded steps are
    slower: take the speed of training from the other steps in metrics.jsonl.

    Args:
        run: folder of the run.
        steps: steps to record, from `steps_of`; steps made by an earlier start of the run are not recorded.
    """

    def __init__(self, run: Path, steps: range | None) -> None:
        self._folder = run / FOLDER
        self._steps = steps if steps and jax.process_index() == 0 else range(0)
        self._recording = contextlib.ExitStack()
        self._first: int | None = None
        self._last: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first is not None:
            self._stop()
        elif self._steps and self._last is None and error is None:
            logger.info(
                f"--profile {self._steps[0]}:{self._steps[-1]} recorded nothing: this command made none of these steps"
            )

    def watch(self, train_step: Callable[..., Any], step: int) -> Callable[..., Any]:
        """Wraps a training step (state, ...) so that the chosen steps are recorded.

        Args:
            train_step: the step; each call counts as an update.
            step: updates made so far.

        Returns:
            A function with the same arguments and results.
        """
        numbers = itertools.count(step + 1)

        def call(state: Any, *others: Any) -> Any:
            number = next(numbers)
            self._before(number, state)
            made = train_step(state, *others)
            self._after(number, made)
            return made

        return call

    def _before(self, step: int, state: Any) -> None:
        if step not in self._steps:
            return
        if self._first is None:
            jax.block_until_ready(state)  # keep earlier steps out of the recording
            # Python calls are not recorded: recording them made a step 1.5 times as slow.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
            self._first = step
        self._recording.enter_context(jax.profiler.StepTraceAnnotation("train", step_num=step))

    def _after(self, step: int, outputs: Any) -> None:
        if step not in self._steps:
            return
        self._recording.close()
        self._last = step
        if step == self._steps[-1]:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        first, self._first = self._first, None
        self._recording.close()
        try:
            jax.profiler.stop_trace()
            newest = max(self._folder.glob(TRACE), key=lambda path: path.stat().st_mtime)
        except (RuntimeError, ValueError, OSError) as error:  # such as JAX's error for a full disk; training goes on
            logger.info(f"{self._folder} does not hold the profile of step {first} and later steps: {error}")
            return
        folder = shlex.quote(str(self._folder))
        logger.info(
            f"steps {first} to {self._last or first} are recorded: run tensorboard --logdir {folder} (after pip "
            f"install tensorboard xprof), or open {newest} at https://ui.perfetto.dev"
        )

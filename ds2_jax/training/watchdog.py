"""Tells when training stands still. It loads nothing but Python's own modules."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

THREADS = "stacks of all threads, most recent call first"


class Watchdog:
    """Prints the stacks of all threads if no step ends for `minutes`, and again after every further `minutes`.

    A context manager. It never ends the process. It writes straight to the file descriptor of stderr, past locks and
    buffers.

    A Python thread prints the stacks. If native code holds the GIL, faulthandler prints them instead,
    1.25 * `minutes` after the Python thread last ran, and without the line that says what the process was doing.

    Args:
        minutes: time without a finished step before it prints; 0: never.
        doing: what the process does first, in words; see `beat`.
    """

    def __init__(self, minutes: float, doing: str = "before the first step") -> None:
        self._minutes = minutes
        self._seconds = min(max(60 * minutes, 0.1), 1e9)  # the range that the timers accept
        self._beat = time.monotonic(), doing
        self._stopped = threading.Event()
        self._stack = contextlib.ExitStack()

    def beat(self, doing: str) -> None:
        """Restarts the wait, because a step has ended or other long work begins.

        Args:
            doing: what the process does from now on, in words.
        """
        self._beat = time.monotonic(), doing

    def __enter__(self) -> Self:
        file = _copy_of_stderr() if self._minutes else None
        if file is not None:
            self._stack.callback(os.close, file)
            self._stack.callback(faulthandler.cancel_dump_traceback_later)
            thread = threading.Thread(target=self._watch, args=(file,), name="watchdog", daemon=True)
            self._beat = time.monotonic(), self._beat[1]
            thread.start()
            self._stack.callback(thread.join)
            self._stack.callback(self._stopped.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _watch(self, file: int) -> None:
        watched, told = self._beat, 0
        while True:
            faulthandler.dump_traceback_later(1.25 * self._seconds, repeat=True, file=file)
            due = watched[0] + (told + 1) * self._seconds
            if self._stopped.wait(max(0.0, min(due - time.monotonic(), self._seconds / 4))):
                return
            if self._beat is not watched:
                watched, told = self._beat, 0
            elif time.monotonic() >= due:
                told = int((time.monotonic() - watched[0]) / self._seconds)
                minutes = f"{told * self._minutes:g}"
                with contextlib.suppress(OSError):  # stderr has no reader any more
                    os.write(file, f"\nno step has ended for {minutes} minutes ({watched[1]}); {THREADS}:\n".encode())
                    faulthandler.dump_traceback(file)


def _copy_of_stderr() -> int | None:
    """Duplicates stderr's descriptor, so that nobody else closes or reuses it; returns None if stderr is closed."""
    for stream in (sys.stderr, sys.__stderr__):  # Jupyter and pytest replace stderr by one without a descriptor
        if stream is not None:
            with contextlib.suppress(ValueError, OSError):  # closed, or without a descriptor
                return os.dup(stream.fileno())
    return None

"""Ctrl-C: ends a command at once, training after its step; never as an exception in the middle of anything.

Python calls a signal handler in its main thread, between two of its own instructions: not while XLA compiles or
TensorFlow loads; and what a handler raises inside a `__del__` is lost. So here a thread waits for the signal, and the
process ends through `os._exit`: the interpreter's own end races the threads of TensorFlow and XLA, and crashes.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 130
GRACE_SECONDS = 4.0
"""For a step to end; a compilation, in which nothing can be lost, may take minutes."""

_requested, _answered = threading.Event(), threading.Event()
_prospects: Callable[[], str] | None = None
"""Inside `deferred`: says what an interruption costs."""


def watch() -> None:
    """Lets Ctrl-C (SIGINT) end this process with `EXIT_CODE`. Where the caller ignores SIGINT, so do we."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # nohup, or a script's background job
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.signal(signal.SIGINT, lambda *_: None)  # with a handler of Python's the signal is written to the socket
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, writer), daemon=True).start()


@contextlib.contextmanager
def deferred(prospects: Callable[[], str]) -> Iterator[None]:
    """The first Ctrl-C inside only makes `check` raise; the second, or a step that takes too long, ends the process.

    Args:
        prospects: says what an interruption costs.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; its text is that of `prospects`.
    """
    global _prospects
    _prospects = prospects
    try:
        yield
        check()  # pressed after the last step
    except KeyboardInterrupt:
        raise KeyboardInterrupt(prospects()) from None
    finally:
        _prospects = None


def check() -> None:
    """Raises KeyboardInterrupt where Ctrl-C was pressed; to be called between two steps."""
    if _requested.is_set():
        _answered.set()
        raise KeyboardInterrupt


def leave(code: int) -> NoReturn:
    """Ends the process; what it printed is written first, as far as it can be."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # told before, or nobody reads it
            if stream is not None:  # closed by the caller
                stream.flush()
    os._exit(code)


def _wait(reader: socket.socket, _: socket.socket) -> None:
    """Ends the process when told to by the socket; the other end is held so that it stays open."""
    while reader.recv(1)[0] != signal.SIGINT:
        pass
    prospects = _prospects  # the main thread may leave `deferred` meanwhile
    if prospects is not None:
        _requested.set()
        _say("\ninterrupted: finishing this step; Ctrl-C again leaves at once")
        reader.settimeout(GRACE_SECONDS)
        try:
            reader.recv(1)  # the second
        except TimeoutError:
            if _answered.is_set():  # what takes so long is a save
                reader.settimeout(None)
                reader.recv(1)
    _say("\ninterrupted" + (f"; {prospects()}" if prospects else ""))
    os._exit(EXIT_CODE)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())  # the main thread may hold the lock of sys.stderr

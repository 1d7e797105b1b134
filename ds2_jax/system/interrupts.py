"""Ctrl-C and SIGTERM: end a command at once, training after its step and a save; never as an exception in between.

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

NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

_requested: int | None = None
"""The signal that asks training to stop."""
_prospects: Callable[[], str] | None = None
"""Inside `deferred`: says what an interruption costs."""
_begun = False
"""Whether something would be lost by leaving at once: compiling, before the first step, may take minutes."""


class Stopped(KeyboardInterrupt):
    """Training stops because it was asked to.

    Attributes:
        code: exit code, 128 and the signal's number, as shells count.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number
        self.code = 128 + number

    def __str__(self) -> str:
        return "; ".join(filter(None, [NAMES[signal.Signals(self.number)], *map(str, self.args)]))


def watch() -> None:
    """Lets SIGINT (Ctrl-C) and SIGTERM end this process. Where the caller ignores SIGINT, so do we."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup, or a script's background job, does
            signal.signal(number, lambda *_: None)  # with a handler of Python's the signal is written to the socket
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, writer), daemon=True).start()


@contextlib.contextmanager
def deferred(prospects: Callable[[], str], begun: bool = True) -> Iterator[None]:
    """A signal inside only makes `check` raise; a second Ctrl-C ends the process.

    Args:
        prospects: says what an interruption costs.
        begun: False: until `begin` is called nothing would be lost, and a signal ends the process at once.

    Raises:
        Stopped: a signal came; its text tells which, and `prospects`.
    """
    global _prospects, _begun
    _prospects, _begun = prospects, begun
    try:
        yield
        check()  # sent after the last step
    except Stopped as stop:
        raise Stopped(stop.number, prospects()) from None
    finally:
        _prospects = None


def begin() -> None:
    """From here on something would be lost."""
    global _begun
    _begun = True


def requested() -> int:
    """The signal that asks training to stop; 0: none does."""
    return _requested or 0


def check() -> None:
    """Raises Stopped where a signal came; to be called between two steps."""
    if _requested is not None:
        raise Stopped(_requested)


def leave(code: int) -> NoReturn:
    """Ends the process; what it printed is written first, as far as it can be."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # told before, or nobody reads it
            if stream is not None:  # closed by the caller
                stream.flush()
    os._exit(code)


def _wait(reader: socket.socket, _: socket.socket) -> None:
    """Ends the process when told to by the socket; the other end is held so that it stays open."""
    global _requested
    number = _next_signal(reader)
    prospects = _prospects  # the main thread may leave `deferred` meanwhile
    if prospects is not None and _begun:
        _requested = number
        again = " again" if number == signal.SIGINT else ""
        _say(f"\n{NAMES[number]}: finishing this step and saving; Ctrl-C{again} leaves at once")
        while _next_signal(reader) != signal.SIGINT:  # schedulers send SIGTERM more than once
            pass
        number = signal.SIGINT
    _say(f"\n{NAMES[number]}" + (f"; {prospects()}" if prospects else ""))
    os._exit(128 + number)


def _next_signal(reader: socket.socket) -> signal.Signals:
    while (number := reader.recv(1)[0]) not in NAMES:
        pass
    return signal.Signals(number)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())  # the main thread may hold the lock of sys.stderr

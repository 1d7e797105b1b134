"""Ctrl-C, SIGTERM and SIGHUP. They end a command at once. Training and `lm tune` first finish their step and save.

Python calls a signal handler in its main thread, between two bytecode instructions. So the handler does not run while
XLA compiles or TensorFlow loads, and an exception that it raises inside a `__del__` is lost. Therefore a thread waits
for the signal here. The process ends with `os._exit`, because the interpreter's normal exit races with the threads of
TensorFlow and XLA, and crashes.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    NAMES[signal.SIGHUP] = "hung up"

_requested: int | None = None
"""The signal that asks a command inside `deferred` to stop."""
_prospects: Callable[[], str] | None = None
"""Set inside `deferred`: returns a text that says how to continue after an interruption."""
_task = ""
"""Set inside `deferred`: what is done after a signal."""
_begun = False
"""Whether leaving at once would lose work. Before the first step nothing is lost, and compiling may take minutes."""
_folders: set[Path] = set()
"""Folders to remove before the process ends."""


class Stopped(KeyboardInterrupt):
    """A command inside `deferred` stops because a signal asked it to.

    Attributes:
        code: exit code, 128 plus the signal's number, as in shells.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number
        self.code = 128 + number

    def __str__(self) -> str:
        return "; ".join(filter(None, [NAMES[signal.Signals(self.number)], *map(str, self.args)]))


def watch() -> None:
    """Lets the signals of `NAMES` end this process. A signal that the caller ignores, as nohup does, stays ignored."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:  # it is in a script's background job, and under nohup
            signal.signal(number, lambda *_: None)  # with a Python handler the signal is written to the socket
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, writer), daemon=True).start()


@contextlib.contextmanager
def deferred(
    prospects: Callable[[], str], begun: bool = True, task: str = "finishing this step and saving"
) -> Iterator[None]:
    """Defers signals: the first one only makes `check` raise an error. A second Ctrl-C ends the process.

    Args:
        prospects: returns a text that says how to continue after an interruption.
        task: what is done after a signal.
        begun: whether leaving would lose work. If False, a signal ends the process at once until `begin` is called.

    Raises:
        Stopped: a signal came. The text names the signal and includes the text of `prospects`.
    """
    global _prospects, _begun, _task
    _prospects, _begun, _task = prospects, begun, task
    try:
        yield
        check()  # sent after the last step
    except Stopped as stop:
        raise Stopped(stop.number, prospects()) from None
    finally:
        _prospects = None


def begin() -> None:
    """Marks that leaving would lose work from now on."""
    global _begun
    _begun = True


def requested() -> int:
    """Returns the signal that asks a command inside `deferred` to stop, or 0."""
    return _requested or 0


def check() -> None:
    """Raises Stopped if a signal came. Call it between two steps."""
    if _requested is not None:
        raise Stopped(_requested)


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Makes a folder, in `parent` or the system's place, that is removed even if a signal ends the process."""
    with tempfile.TemporaryDirectory(prefix="ds2_jax_", dir=parent) as name:
        folder = Path(name)
        _folders.add(folder)
        try:
            yield folder
        finally:
            _folders.discard(folder)


def leave(code: int) -> NoReturn:
    """Ends the process after flushing its output, if that is possible."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the error was reported before, or nobody reads the output
            if stream is not None:  # closed by the caller
                stream.flush()
    _exit(code)


def _wait(reader: socket.socket, _: socket.socket) -> None:
    """Ends the process when a signal arrives at the socket. The second argument keeps the other end open."""
    global _requested
    number = _next_signal(reader)
    prospects = _prospects  # the main thread may leave `deferred` meanwhile
    if prospects is not None and _begun:
        _requested = number
        again = " again" if number == signal.SIGINT else ""
        _say(f"\n{NAMES[number]}: {_task}; Ctrl-C{again} leaves at once")
        while _next_signal(reader) != signal.SIGINT:  # schedulers send SIGTERM more than once
            pass
        number = signal.SIGINT
    _say("\n" + "; ".join(filter(None, [NAMES[number], prospects() if prospects else ""])))
    _exit(128 + number)


def _exit(code: int) -> NoReturn:
    for folder in tuple(_folders):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


def _next_signal(reader: socket.socket) -> signal.Signals:
    while (number := reader.recv(1)[0]) not in NAMES:
        pass
    _discard_lost_output()
    return signal.Signals(number)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())  # the main thread may hold the lock of sys.stderr


def _discard_lost_output() -> None:
    """Redirects stdout and stderr to nowhere if their terminal is gone: else the next message would raise an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")  # nothing, but it fails without the terminal
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)

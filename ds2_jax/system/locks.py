"""Locks between processes. A lock ends with its process, however the process ends."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path, *, on_taken: Callable[[], None], on_no_locks: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a folder or a file. A missing file is created.

    Args:
        path: the folder or file. Over NFS use a file, because NFS locks only what can be opened for writing.
        on_taken: called if another process holds the lock. It raises an error, or returns to wait for that process.
        on_no_locks: called with the reason if the file system has no locks. The body then runs without one.

    Raises:
        OSError: the file cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
            stack.callback(os.close, handle)  # closing unlocks, and so does the end of the process
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_taken()
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                on_no_locks(error.strerror or str(error))
        yield

"""Writes files completely or not at all, reports failures with the file's name, and searches folders."""

import collections
import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the body into an InputError that names `path`.

    Raises:
        InputError: `path` cannot be written: the disk is full, the folder is read-only, a size limit is reached.
    """
    try:
        yield
    except OSError as error:
        advice = "Free space, or correct the path or its permissions."
        raise InputError(f"{path} must be writable, got: {error.strerror or error}. {advice}") from error


def make_writable(folder: Path) -> None:
    """Makes a folder if it is missing, and tries to write there. Call it before long work whose results go there.

    Raises:
        InputError: the folder cannot be made or written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def write_text(path: Path, text: str) -> None:
    """Replaces a file, or creates it with its parent folders. A crash leaves the old file.

    Raises:
        InputError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes; see `write_text`."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_bytes(content)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def check_is_readable(path: Path, name: str = "") -> None:
    """Tries to open a file, so that a command with a wrong path fails before anything slow is imported.

    Raises:
        InputError: the file cannot be opened; `name` stands before its path in the message.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        told = f"{name} {path}".strip()
        raise InputError(f"{told} must be a readable file, got: {error.strerror}. Correct the path.") from error


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} must be readable, got: {error.strerror}. Correct this and try again.") from error


def search(folder: Path) -> list[Path]:
    """Lists all files in a folder, sorted by name, then those in each of its folders.

    Links to folders are followed, after the folders themselves. A folder that several links lead to is searched once,
    and a link to a folder that contains this one is not followed, so that links in a circle end. Hidden files and
    folders, whose names begin with a dot, are skipped and counted in the log.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} must be readable, got: {error.strerror}. Correct the permissions and try again."
        )

    found: list[Path] = []
    num_hidden = 0
    seen = {_identity(each) for each in folder.resolve().parents}
    waiting = collections.deque([folder])
    while waiting:
        for place, folders, files in os.walk(waiting.popleft(), onerror=refuse):
            if (identity := _identity(place)) in seen:
                folders.clear()
                continue
            seen.add(identity)
            num_hidden += sum(name[0] == "." for name in [*folders, *files])
            folders[:] = sorted(name for name in folders if name[0] != ".")
            # os.walk does not enter links.
            waiting += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118 - fast
            found += [Path(place, name) for name in sorted(files) if name[0] != "."]
    if num_hidden:
        logger.info(f"{folder}: {num_hidden} hidden file{'s' if num_hidden > 1 else ''} ignored")
    return found


def _identity(folder: Path | str) -> tuple[int, int]:
    """Returns device and inode, which are the same for a folder and for every link to it."""
    status = os.stat(folder)  # noqa: PTH116 - fast
    return status.st_dev, status.st_ino

"""Writes files completely or not at all, reports failures with the file's name, and searches folders."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ds2_jax.system.errors import InputError


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
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_text(text, encoding="utf-8", newline="\n")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def search(folder: Path) -> Iterator[Path]:
    """Yields all files in a folder, sorted by name, then those in each of its folders.

    Hidden files and folders, whose names begin with a dot, are skipped. Links to folders are yielded but not followed,
    because they may form a circle.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} must be readable, got: {error.strerror}. Correct the permissions and try again."
        )

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118 - fast
        yield from (Path(place, name) for name in sorted([*files, *links]) if name[0] != ".")

"""Files that are written whole or not at all, failures to write that name the file, and the search of folders."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ds2_jax.system.errors import InputError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names `path` where it cannot be written: a full disk, a read-only folder, a limit on the size of files.

    Raises:
        InputError: the body raised OSError.
    """
    try:
        yield
    except OSError as error:
        advice = "Make room or mend the permissions, then run the same command again."
        raise InputError(f"{path} must be writable, got: {error.strerror or error}. {advice}") from error


def write_text(path: Path, text: str) -> None:
    """Replaces a file, or makes it with the folders above it; a crash leaves the old one.

    Raises:
        InputError: it cannot be written.
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
    """Yields what is below a folder: its files first, then those of the folders in it, each by name.

    Hidden files and folders, whose names begin with a dot, are passed over. Links to folders are yielded and not
    followed, since they may run in circles.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{error.filename} must be readable, got: {error.strerror}. Mend that and try again.")

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118 - fast
        yield from (Path(place, name) for name in sorted([*files, *links]) if name[0] != ".")

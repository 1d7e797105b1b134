"""Files that are written whole or not at all, and failures to write that name the file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

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

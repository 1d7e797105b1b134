"""Files that are written whole or not at all, and failures to write that name the file."""

import contextlib
import gzip
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ds2_jax.errors import InputError

TFDS = "tfds:"
"""Begins the name of a TensorFlow data set where a manifest could be named, see data/tfds.py."""
DATASET_INFO = "dataset_info.json"
"""The file that makes a folder a TensorFlow data set; it is written last."""

MOST_INFLATED = 50
"""Bytes that a gzip file may hold for each of its own. Text takes 3 to 10, speech 1 or 2; zeros take 1,000."""
INFLATED_AT_LEAST = 2**25
"""Bytes that a gzip file may hold however small it is."""


class _Counted:
    """A file of which the bytes are counted that gzip asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data

    def seek(self, place: int) -> int:
        return self._file.seek(place)


class _Inflated(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._packed = _Counted(file)
        self._content = gzip.GzipFile(fileobj=self._packed, mode="rb")
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._content.readinto(buffer)
        self._count += count
        if self._count > INFLATED_AT_LEAST + MOST_INFLATED * self._packed.count:
            raise gzip.BadGzipFile(f"over {MOST_INFLATED} bytes of content for each of its own")
        return count


def inflate(file: BinaryIO) -> io.BufferedReader:
    """The content of a gzip file, whose checksum is verified at its end.

    Reading it raises what `gzip` does where the file is damaged (BadGzipFile, zlib.error, EOFError), and BadGzipFile
    where it holds more than `MOST_INFLATED` times its own size: a small file could fill the memory with zeros.
    """
    return io.BufferedReader(_Inflated(file), 2**16)


def is_tfds(path: Path) -> bool:
    """Whether a manifest's place names a TensorFlow data set."""
    return str(path).startswith(TFDS)


def absolute(path: Path) -> Path:
    """The same place for a process in any folder; in a tfds: name the folder, where it names one, is made absolute."""
    if not is_tfds(path):
        return path.absolute()
    where, mark, split = str(path).removeprefix(TFDS).rpartition("#")
    folder = Path(where).absolute()
    return Path(f"{TFDS}{folder}{mark}{split}") if (folder / DATASET_INFO).is_file() else path


def user_cache() -> Path:
    """The user's folder for what can be made again; a relative one does not count (XDG base directories).

    Raises:
        RuntimeError: the user has no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def private_folder(path: Path) -> Path:
    """Makes a folder that only the user may read or write; sees to it that one that is there is so.

    What lies in it, code or what stands for it, can then be believed as much as the user's own files.

    Raises:
        InputError: somebody else could have written to it.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders to the user
        return path
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid() or mode & (stat.S_IWGRP | stat.S_IWOTH):
        rule = "belong to you and be writable by nobody else"
        raise InputError(f"{path} must {rule}, got owner {status.st_uid} and mode {mode:o}.")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        path.chmod(stat.S_IRWXU)
    return path


def cache_folder(name: str) -> Path:
    """This project's cache `name`, a private folder below `user_cache`; raises as both do."""
    return private_folder(private_folder(user_cache() / "ds2_jax") / name)


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

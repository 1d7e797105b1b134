"""Unpacks archives safely into a folder."""

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from ds2_jax.system.errors import InputError
from ds2_jax.system.inflate import INFLATED_AT_LEAST, MOST_INFLATED, inflate

CHUNK_BYTES = 1 << 16
GZIP_TRAILER_BYTES = 8  # CRC-32 and size of the content (RFC 1952)
SECONDS_BEFORE_BAR = 3.0
"""Unpacking shows a progress bar only after this time."""
AGAIN = "Delete it and fetch it again."
Choose = Callable[[tarfile.TarInfo], str | None]
"""Returns the path, relative to the folder, to which a member is written. None skips the member."""


class BadArchiveError(InputError):
    """The archive cannot be used. A folder that cannot be written raises InputError instead."""


def fingerprint(archive: Path) -> dict[str, object]:
    """Identifies a .tar.gz without reading all of it, by its size and by gzip's checksum of its content.

    Raises:
        InputError: there is no such file.
    """
    if not archive.is_file():
        raise InputError(f"{archive} must be a file, got a folder or nothing at this path. Correct the path.")
    num_bytes = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, num_bytes - GZIP_TRAILER_BYTES))
        checksum = file.read(4)
    return {"archive_bytes": num_bytes, "archive_crc32": checksum[::-1].hex()}


def extract(archive: Path, folder: Path, choose: Choose | None = None, *, shows_bar: bool = True) -> None:
    """Unpacks a .tar.gz into `folder` and verifies gzip's checksum.

    Only plain files and folders below `folder` are written, whatever the archive contains. After an error, `folder` may
    contain part of the archive, so unpack into a temporary folder. After a few seconds, a progress bar is shown.

    Args:
        archive: .tar.gz file.
        folder: folder to unpack into.
        choose: if given, it is called for every member in order and returns the path to write. Only plain files are
            written. A file that exists with the right size is not written again. Without it, all members
            are unpacked, and they must be files or folders.
        shows_bar: False if the caller shows the progress of several archives.

    Raises:
        BadArchiveError: the file is not a .tar.gz, is cut off or damaged, or a member lies outside the folder; without
            `choose`, also if a member is a link or a device.
        InputError: there is no such file, or the folder cannot be written, for example because the disk is full.

    Differs: tarfile's "data" filter accepts links that stay inside, and strips the root from absolute names. No corpus
        needs this, and the filter itself allowed escapes through links (CVE-2025-4517).
    """
    with _reading(archive, folder, shows_bar) as tar:
        while member := _next(archive, tar):
            tar.members.clear()  # type: ignore[attr-defined] # the list of 2.5 million clips would need gigabytes
            if choose is not None:
                name = choose(member)
                if name is None or not member.isfile():
                    continue
                _check_member(archive, member)
                member = member.replace(name=name)
                if _is_there(folder / name, member.size):
                    continue
            _check_member(archive, member)
            with _parsing(archive):
                tar.extract(member, folder, filter="data")


def _next(archive: Path, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _parsing(archive):
        member = tar.next()
    most = INFLATED_AT_LEAST + MOST_INFLATED * archive.stat().st_size
    if tar.offset > most:  # the start of the next member: tarfile would decompress everything up to there
        raise BadArchiveError(f"{archive} must unpack to at most {most:,} bytes, but a header states more. {AGAIN}")
    return member


@contextlib.contextmanager
def _parsing(archive: Path) -> Iterator[None]:
    """Converts errors of tarfile into BadArchiveError. tarfile does not check the numbers and nesting in a header."""
    try:
        yield
    except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadArchiveError(
            f"{archive} must be an undamaged .tar.gz archive, got a bad header ({reason}). {AGAIN}"
        ) from error


@contextlib.contextmanager
def _reading(archive: Path, folder: Path, shows_bar: bool) -> Iterator[tarfile.TarFile]:
    """Opens an archive, and verifies gzip's checksum at the end."""
    if not archive.is_file():
        raise InputError(f"{archive} must be a file, got a folder or nothing at this path. Correct the path.")
    try:
        with archive.open("rb") as file, _bar(archive, file, shows_bar) as packed, inflate(packed) as stream:
            with _open_tar(archive, stream) as tar:
                yield tar
            while stream.read(CHUNK_BYTES):  # tarfile stops before gzip's checksum
                pass
    except (gzip.BadGzipFile, zlib.error, EOFError, tarfile.TarError) as error:
        raise BadArchiveError(f"{archive} must be an undamaged .tar.gz archive, got: {error}. {AGAIN}") from error
    except OSError as error:
        raise InputError(
            f"{folder} must be a folder to which {archive} can be unpacked, got: {error}. Correct this and try again."
        ) from error


def _open_tar(archive: Path, stream: BinaryIO) -> tarfile.TarFile:
    with _parsing(archive):  # opening it reads the first header
        return tarfile.open(fileobj=stream, mode="r|")


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    """Raises BadArchiveError for members that no corpus needs; tarfile's "data" filter handles owner and mode."""
    name = PurePosixPath(member.name)
    plain = member.isfile() or member.isdir()
    if "\0" in member.name or not plain or name.is_absolute() or ".." in name.parts:
        kind = "file" if plain else "link or device"
        raise BadArchiveError(
            f"{archive} must hold only files and folders with relative paths without .., got the {kind} "
            f"{member.name!r}. Do not use this archive."
        )


def _is_there(path: Path, num_bytes: int) -> bool:
    """Whether an earlier call unpacked the file. Files are written from start to end, so checking the size suffices."""
    return path.is_file() and path.stat().st_size == num_bytes


def _bar(archive: Path, file: BinaryIO, shows_bar: bool) -> contextlib.AbstractContextManager[BinaryIO]:
    """Wraps `file` so that reading it moves a progress bar."""
    title, size = f"unpacking {archive.name}", archive.stat().st_size
    wrapped: contextlib.AbstractContextManager[BinaryIO] = tqdm.wrapattr(
        file, "read", size, desc=title, delay=SECONDS_BEFORE_BAR, disable=not shows_bar
    )
    return wrapped

"""Presents parts of an audio file, with other bytes in front, as one file."""

import contextlib
import io
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

ID3V1_BYTES = 128
"""Length of an ID3v1 tag, which starts with TAG and stands at the end of a file."""


class AudioBytes:
    """An audio file in memory.

    Attributes:
        name: the name to use in messages instead of a path.
        data: the contents of the file.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data

    def __str__(self) -> str:
        return self.name


Source = Path | AudioBytes


def open_binary(source: Source) -> BinaryIO:
    """Opens the bytes of a source for reading."""
    return io.BytesIO(source.data) if isinstance(source, AudioBytes) else source.open("rb")


def num_bytes(source: Source) -> int:
    """Returns the size of a source."""
    return len(source.data) if isinstance(source, AudioBytes) else source.stat().st_size


@contextlib.contextmanager
def contents(source: Source) -> Iterator[bytes | mmap.mmap]:
    """Gives the bytes of a source, which must not be empty, without reading a file into memory."""
    if isinstance(source, AudioBytes):
        yield source.data
        return
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


class Parts(io.RawIOBase):
    """A file for reading that consists of `head` and then parts of another file.

    It lets libsndfile read a recording whose header is wrong: a right header goes in front of the sound.

    Args:
        source: the other file.
        head: the first bytes.
        ranges: start and end of each part, in bytes of `source`.
    """

    def __init__(self, source: Source, head: bytes, ranges: Sequence[tuple[int, int]]) -> None:
        self._head, self._ranges = head, ranges
        self._size = len(head) + sum(end - start for start, end in ranges)
        self._position = 0
        self._file = open_binary(source)

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position, which is returned."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads as many bytes as the buffer holds, or those that are left; returns their number."""
        filled = 0
        while data := self._part(len(buffer) - filled):  # libsndfile takes fewer bytes for the end of the file
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
        return filled

    def _part(self, size: int) -> bytes:
        """Returns at most `size` bytes at the position, from one part."""
        position = self._position
        if position < len(self._head):
            return self._head[position : position + size]
        position -= len(self._head)
        for start, end in self._ranges:
            if position < end - start:
                self._file.seek(start + position)
                return self._file.read(min(size, end - start - position))
            position -= end - start
        return b""

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        super().close()

"""Gzip files that are read with a bound on what they may hold."""

import gzip
import io
from typing import Any, BinaryIO

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

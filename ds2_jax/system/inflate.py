"""Reads gzip files with a limit on the size of their contents."""

import gzip
import io
from typing import Any, BinaryIO

MOST_INFLATED = 50
"""Largest number of content bytes for each byte of a gzip file. Text has 3 to 10, speech 1 or 2, zeros 1,000."""
INFLATED_AT_LEAST = 2**25
"""Number of content bytes that a gzip file may have in addition to that."""


class _Counted:
    """Counts the bytes that gzip reads."""

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
            raise gzip.BadGzipFile(f"over {MOST_INFLATED} bytes of content for each byte of the file")
        return count


def inflate(file: BinaryIO) -> io.BufferedReader:
    """Opens the contents of a gzip file. The checksum is verified at the end.

    Reading raises the errors of `gzip` if the file is damaged (BadGzipFile, zlib.error, EOFError). It also
    raises BadGzipFile if the contents are larger than `MOST_INFLATED` times the file plus `INFLATED_AT_LEAST`, because
    a small file could fill the memory with zeros.
    """
    return io.BufferedReader(_Inflated(file), 2**16)

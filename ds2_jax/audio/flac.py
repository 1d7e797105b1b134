"""Compares the length that a FLAC file states with its frames. libFLAC stops at the stated number of samples."""

import functools
import mmap
from collections.abc import Iterator

from ds2_jax.audio.parts import ID3V1_BYTES, Parts, Source, contents, num_bytes

TOTAL = 13  # bytes of STREAMINFO before the byte whose low half begins the number of samples
FIXED_SIZES = {1: 192} | {code: 576 << (code - 2) for code in range(2, 6)} | {code: 1 << code for code in range(8, 16)}
"""Samples in a frame by the code in its header. Codes 6 and 7 stand for a number behind it."""
LAST_BLOCK = 128  # flag of the last block of metadata
HEADER_BYTES = 16  # of the longest header of a frame
SEARCHED = 1 << 21
"""Bytes at the end of a file in which the last frame is looked for. A frame of 8 channels has 1.6 MB at most."""
MOST_ENDS = 3


def second_flac(path: Source) -> int:
    """Returns the byte at which another FLAC stream starts behind the first; 0 if there is none."""
    with contents(path) as data:
        # Tags may stand in front of the first, and its metadata may hold anything.
        offset = data.find(b"fLaC", _first_frame(data, data.find(b"fLaC")))
        while offset >= 0 and data[offset + 4 : offset + 8] not in (b"\0\0\0\x22", b"\x80\0\0\x22"):  # STREAMINFO
            offset = data.find(b"fLaC", offset + 1)
    return max(0, offset)


def with_samples_behind(path: Source) -> Parts | None:
    """Returns a FLAC file with a right header if frames follow behind the number of samples that the header states.

    Returns:
        The file from its header on; None if the header is right, states no number, or the last frame is damaged.

    Source: RFC 9639, sections 8.2 and 9.1.
    """
    with contents(path) as data:
        start = data.find(b"fLaC")
        info = data[start + 8 : start + 8 + 34]
        if start < 0 or len(info) < 34:
            return None
        stated = int.from_bytes(info[TOTAL : TOTAL + 5], "big") & 0xF_FFFF_FFFF
        num_samples = _samples_behind(data, start, int.from_bytes(info[:2], "big"), stated)
        if not num_samples:
            return None
        place = start + 8 + TOTAL
        total = (data[place] & 0xF0) << 32 | num_samples
        head = data[start:place] + total.to_bytes(5, "big")
    return Parts(path, head, [(place + 5, num_bytes(path))])


def _samples_behind(data: bytes | mmap.mmap, start: int, block_size: int, stated: int) -> int:
    """Returns the number of samples up to the end of the last whole frame if it is more than stated; otherwise 0."""
    place = _first_frame(data, start)
    first = _header(data[place : place + HEADER_BYTES], block_size)
    # A part that was cut out of a stream keeps the numbers of its frames.
    before = first[0] if first else 0
    ends = [len(data) - (ID3V1_BYTES if data[-ID3V1_BYTES:].startswith(b"TAG") else 0)]
    for offset, num_samples in _last_headers(data, place, block_size):
        if num_samples - before <= stated or not stated:
            return 0
        # The header's checksum of 8 bits fits by chance to every 256th of the places that look like one. So a frame may
        # end where another seems to begin, or behind it.
        if any(_crc16(data[offset:end]) == 0 for end in ends[-MOST_ENDS:]):
            return num_samples - before
        ends.append(offset)
    return 0


def _first_frame(data: bytes | mmap.mmap, start: int) -> int:
    """Returns the byte behind the blocks of metadata, each of which has a type, three bytes of size, and a body."""
    offset, is_last = start + 4, False
    while offset < len(data) and not is_last:
        is_last = data[offset] >= LAST_BLOCK
        offset += 4 + int.from_bytes(data[offset + 1 : offset + 4], "big")
    return offset


def _last_headers(data: bytes | mmap.mmap, start: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Yields places of frame headers near the end of the file, with the number of samples up to the frame's end."""
    offset = len(data)
    while (offset := data.rfind(b"\xff", max(start, len(data) - SEARCHED), offset)) >= 0:
        header = data[offset : offset + HEADER_BYTES]
        if found := _header(header, block_size):
            yield offset, found[1]


def _header(header: bytes, block_size: int) -> tuple[int, int] | None:
    """Returns the places of the first sample of the frame with this header, and behind its last; None if it is none."""
    if len(header) < HEADER_BYTES or header[0] != 0xFF or header[1] & 0xFE != 0xF8:
        return None
    code, rate_code = header[2] >> 4, header[2] & 15
    num_bytes = max(1, 8 - (header[4] ^ 0xFF).bit_length())  # as UTF-8 codes a character
    end = 4 + num_bytes
    number = header[4] & (0x7F if num_bytes == 1 else 0x7F >> num_bytes)
    for byte in header[5:end]:
        number = number << 6 | byte & 0x3F
    size = FIXED_SIZES.get(code, 0)
    if code in (6, 7):
        size, end = int.from_bytes(header[end : end + code - 5], "big") + 1, end + code - 5
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if end >= len(header) or not size or _crc8(header[:end]) != header[end]:
        return None
    first = number * (1 if header[1] & 1 else block_size)
    return first, first + size


def _crc8(content: bytes) -> int:
    """Computes the CRC-8 of FLAC's frame headers, with the polynomial x^8 + x^2 + x + 1."""
    return _crc(content, 0x07, 8)


def _crc16(content: bytes) -> int:
    """Computes the CRC-16 of FLAC's frames, with the polynomial x^16 + x^15 + x^2 + 1; 0 for a frame with its own."""
    return _crc(content, 0x8005, 16)


def _crc(content: bytes, polynomial: int, num_bits: int) -> int:
    table, value = _crc_table(polynomial, num_bits), 0
    for byte in content:
        value = (value << 8 ^ table[value >> (num_bits - 8) ^ byte]) & ((1 << num_bits) - 1)
    return value


@functools.cache
def _crc_table(polynomial: int, num_bits: int) -> list[int]:
    """Computes the checksum of each byte."""
    table, top = [], 1 << (num_bits - 1)
    for byte in range(256):
        value = byte << (num_bits - 8)
        for _ in range(8):
            value = value << 1 ^ polynomial if value & top else value << 1
        table.append(value & ((1 << num_bits) - 1))
    return table

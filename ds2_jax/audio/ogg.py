"""Reads the pages of Ogg files.

libsndfile takes a damaged or cut Ogg file for a shorter one, and reads one stream. A file may hold several, one after
the other (a chain of links), as recorded radio does.
"""

import mmap
import struct
import zlib

from ds2_jax.audio.parts import ID3V1_BYTES, AudioBytes, Source, contents

PAGE = struct.Struct("<4sxBqII4sB")  # "OggS", flags, position, stream, page number, checksum, number of segments
FIRST = 2  # flag of a stream's first page
LAST = 4  # flag of a stream's last page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
SECOND = "a second stream"


def fault(source: Source) -> str:
    """Reads an Ogg file to its end and describes the first fault of its pages; "" if there is none.

    A second stream is a fault, which begins with SECOND.

    Source: RFC 3533, section 6.
    """
    with contents(source) as data:
        return _fault(data)


def _fault(data: bytes | mmap.mmap) -> str:
    offset, flags, stream, expected = 0, 0, None, None
    while header := data[offset : offset + PAGE.size]:
        if header.startswith(b"TAG") and len(data) - offset == ID3V1_BYTES:
            break
        if len(header) < PAGE.size:
            return "a file cut short"
        capture, flags, _, serial, number, checksum, _ = PAGE.unpack(header)
        end = _end(data, offset)
        if capture != b"OggS":
            return f"something other than a page at byte {offset}"
        if end > len(data):
            return "a file cut short"
        if _checksum(data[offset:end]) != checksum:
            return f"a damaged page at byte {offset}"
        if stream not in (None, serial) or (flags & FIRST and offset):
            return f"{SECOND} at byte {offset}"
        if expected not in (None, number):
            return f"a page missing before byte {offset}"
        offset, stream, expected = end, serial, number + 1
    return "" if flags & LAST else "a file cut short"


def links(source: Source) -> list[AudioBytes]:
    """Divides a chain where one stream has ended and the next begins. Streams that overlap stay together.

    Returns:
        The links that hold sound; an empty list if the file is no chain.
    """
    with contents(source) as data:
        starts, sounding, open_streams, offset = [0], set[int](), set[int](), 0
        while data[offset : offset + 4] == b"OggS" and len(data) - offset >= PAGE.size:
            _, flags, position, serial, _, _, _ = PAGE.unpack(data[offset : offset + PAGE.size])
            if flags & FIRST:
                if offset and not open_streams:
                    starts.append(offset)
                open_streams.add(serial)
            if flags & LAST:
                open_streams.discard(serial)
            if position > 0:  # pages of headers are at 0
                sounding.add(starts[-1])
            offset = _end(data, offset)
        if len(starts) < 2:
            return []
        ends = [*starts[1:], len(data)]
        limits = zip(starts, ends, strict=True)
        return [AudioBytes(str(source), data[start:end]) for start, end in limits if start in sounding]


def _end(data: bytes | mmap.mmap, offset: int) -> int:
    """Returns where a page ends: behind its segments, whose sizes follow the header."""
    body = offset + PAGE.size + data[offset + PAGE.size - 1]
    return body + sum(data[offset + PAGE.size : body])


def _checksum(page: bytes) -> bytes:
    """Computes Ogg's CRC-32, where the checksum's own four bytes count as zero.

    zlib's CRC-32 gives it if the bits of each byte are reversed before and after, and zlib's two inversions are undone.
    """
    blank = page[:22] + bytes(4) + page[26:]
    reverse = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reverse.to_bytes(4, "big").translate(REVERSED_BITS)

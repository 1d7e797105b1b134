"""Reads the lengths that the headers of audio files state. `audio/reading.py` compares them with the contents."""

import dataclasses
import io
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

# A program that writes AIFF into a pipe does not know the size. sox writes this value, ffmpeg 0 or -1.
SIZE_UNKNOWN = 0x7F000000
SPHERE_MAX_HEADER_BYTES = 1 << 16
OGG_PAGE = struct.Struct("<4sxB8xII4sB")  # "OggS", flags, stream, page number, checksum, number of segments
OGG_FIRST = 2  # flag of a stream's first page
OGG_LAST = 4  # flag of a stream's last page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Without a Xing or Info header libsndfile estimates an MP3's length from the file's size and first frame. Without tags
# it was at most 0.5 % too long at constant bit rates (3 s of noise, 8 to 48 kHz). The limit is twice that.
MP3_ESTIMATE_ERROR = 0.01
# Bit rates (kbit/s) and sample rates (Hz) of Layer III for each value of the two version bits (ISO 11172-3 and 13818-3;
# 0 is MPEG 2.5).
MP3_BIT_RATES = {3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
MP3_BIT_RATES |= dict.fromkeys((0, 2), (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
MP3_SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclasses.dataclass(frozen=True)
class AudioBytes:
    """An audio file in memory.

    Attributes:
        name: the name to use in messages instead of a path.
        data: the contents of the file.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | AudioBytes


def _open_binary(source: Source) -> BinaryIO:
    return io.BytesIO(source.data) if isinstance(source, AudioBytes) else source.open("rb")


def _num_bytes(source: Source) -> int:
    return len(source.data) if isinstance(source, AudioBytes) else source.stat().st_size


def wav_data_bytes(path: Source) -> tuple[int, int]:
    """Returns how many bytes of samples the header states, and how many bytes follow it in the file."""
    with _open_binary(path) as file:
        order = ">" if file.read(12).startswith(b"RIFX") else "<"
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack(order + "4sI", header)
            if name == b"data":
                return size, _num_bytes(path) - file.tell()
            file.seek(size + size % 2, 1)
    return 0, 0


def sphere_sample_count(path: Source) -> int | None:
    """Returns the number of samples per channel that the header states; None if the header states none."""
    with _open_binary(path) as file:
        header, _, _ = file.read(SPHERE_MAX_HEADER_BYTES).partition(b"end_head")
    found = re.search(rb"^sample_count -i (\d+)", header, re.MULTILINE)
    return int(found[1]) if found else None


def ogg_fault(path: Source) -> str:
    """Reads an Ogg file to its end and describes the first fault of its pages; "" if there is none.

    Source: RFC 3533, section 6.
    """
    with _open_binary(path) as file:
        data = file.read()
    offset, flags, stream, expected = 0, 0, None, None
    while header := data[offset : offset + OGG_PAGE.size]:
        if len(header) < OGG_PAGE.size:
            return "a file cut short"
        capture, flags, serial, number, checksum, num_segments = OGG_PAGE.unpack(header)
        end = offset + OGG_PAGE.size + num_segments
        end += sum(data[offset + OGG_PAGE.size : end])
        if capture != b"OggS":
            return f"something other than a page at byte {offset}"
        if end > len(data):
            return "a file cut short"
        if _ogg_checksum(data[offset:end]) != checksum:
            return f"a damaged page at byte {offset}"
        if stream not in (None, serial) or (flags & OGG_FIRST and offset):
            return f"a second stream at byte {offset}"
        if expected not in (None, number):
            return f"a page missing before byte {offset}"
        offset, stream, expected = end, serial, number + 1
    return "" if flags & OGG_LAST else "a file cut short"


def _ogg_checksum(page: bytes) -> bytes:
    """Computes Ogg's CRC-32, where the checksum's own four bytes count as zero.

    zlib's CRC-32 gives it if the bits of each byte are reversed before and after, and zlib's two inversions are undone.
    """
    blank = page[:22] + bytes(4) + page[26:]
    reverse = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reverse.to_bytes(4, "big").translate(REVERSED_BITS)


def logged_fault(log: str) -> str:
    """Reads in libsndfile's log whether a file lacks data (AIFF, AU, CAF, MAT4, RF64, SVX, VOC, W64, WVE).

    A very large size is ignored: a program that wrote into a pipe could not know the size.

    Returns:
        A description of what is missing; "" if nothing is.
    """
    for promised, held in re.findall(r"(-?\d+) \(?should be (\d+)\)?$", log, re.MULTILINE):
        if int(held) + 1 < int(promised) < SIZE_UNKNOWN:  # the padding byte of an odd chunk may be missing
            return f"{held} bytes of {promised}"
    return "a file cut short" if "truncated" in log else ""


def mp3_length_excess(path: Source) -> float:
    """Returns the fraction by which libsndfile's length of an intact MP3 may be too long.

    It is 0 if the first frame states the length.
    """
    with _open_binary(path) as file:
        start = mp3_start(file.read(10))
        file.seek(start)
        return 0.0 if _states_length(file.read(64)) else MP3_ESTIMATE_ERROR + start / _num_bytes(path)


def mp3_start(tag: bytes) -> int:
    """Returns the number of bytes before the first frame: the size of the ID3 tag.

    The tag starts with a header of ten bytes. The last four, of 7 bits each, state the size of the rest of the tag.
    """
    if not tag.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))


def _states_length(first_frame: bytes) -> bool:
    return b"Xing" in first_frame or b"Info" in first_frame


def mp3_varies(path: Source) -> bool:
    """Whether the bit rate varies and the first frame does not state the length."""
    with _open_binary(path) as file:
        data = file.read()
    offset = mp3_start(data[:10])
    if _states_length(data[offset : offset + 64]):
        return False
    found = set()
    while len(header := data[offset : offset + 4]) == 4 and header[0] == 0xFF and header[1] & 0xE6 == 0xE2:
        version, rate, frequency = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
        if version == 1 or rate in (0, 15) or frequency == 3:  # reserved values, or a frame without a stated size
            break
        found.add(rate)
        factor = 144 if version == 3 else 72
        size = factor * 1000 * MP3_BIT_RATES[version][rate] // MP3_SAMPLE_RATES[version][frequency]
        offset += size + (header[2] >> 1 & 1)
    return len(found) > 1

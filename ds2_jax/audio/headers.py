"""Reads the lengths that the headers of audio files state. `audio/reading.py` compares them with the contents."""

import re
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ds2_jax.audio.parts import ID3V1_BYTES, Parts, Source, num_bytes, open_binary

# A program that writes AIFF into a pipe does not know the size. sox writes this value, ffmpeg 0 or -1.
SIZE_UNKNOWN = 0x7F000000
SPHERE_MAX_HEADER_BYTES = 1 << 16
LARGEST = 1 << 60  # a size that nobody writes
SMALLEST_CHUNK = 8  # bytes: name and size
MOST_PADDING = 1 << 16
MOST_BEFORE_SOUND = 1 << 24  # bytes; what describes the sound, pictures included, is shorter
# Chunks that hold no sound and often stand beside it. One of them is recognised even if it is cut short.
METADATA_CHUNKS = frozenset(
    {b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"PEAK", b"fact", b"JUNK", b"PAD ", b"FLLR"}
)
KNOWN_CHUNKS = METADATA_CHUNKS | {b"fmt ", b"data", b"COMM", b"SSND"}
FILE_STARTS = frozenset({b"RIFF", b"RIFX", b"RF64", b"FORM"})


def wav_data_bytes(path: Source) -> tuple[int, int]:
    """Returns how many bytes of samples a header states, and how many follow it: of the first chunk, or of one cut."""
    found = 0, 0
    with open_binary(path) as file:
        order = ">" if file.read(12).startswith(b"RIFX") else "<"
        for name, size, start in _chunks(file, 12, order):
            held = num_bytes(path) - start
            if name == b"data" and (found == (0, 0) or held < size):
                found = size, held
    return found


def sphere_sample_count(path: Source) -> int | None:
    """Returns the number of samples per channel that the header states; None if the header states none."""
    with open_binary(path) as file:
        header, _, _ = file.read(SPHERE_MAX_HEADER_BYTES).partition(b"end_head")
    found = re.search(rb"^sample_count -i (\d+)", header, re.MULTILINE)
    return int(found[1]) if found else None


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


def with_sound_behind(path: Source, file_format: str) -> Parts | None:
    """Returns a file with a right header if sound follows behind the end that the header states.

    A recorder that crashes leaves the size 0 or an old one, and sizes above 4 GiB are stored modulo 2^32.

    Args:
        path: the file.
        file_format: libsndfile's name of the format.

    Returns:
        The file up to the end of the sound; None if the header is right, or for formats other than WAV, RF64, AIFF,
        CAF and AU.
    """
    with open_binary(path) as file:
        if file_format == "CAF":
            return _caf_with_sound_behind(path, file, num_bytes(path))
        if file_format in ("WAV", "WAVEX", "RF64"):
            return _wav_with_sound_behind(path, file, num_bytes(path))
        if file_format == "AIFF":
            return _aiff_with_sound_behind(path, file, num_bytes(path))
        return _au_with_sound_behind(path, file, num_bytes(path)) if file_format == "AU" else None


def with_plain_chunks(path: Source) -> Parts | None:
    """Returns a WAV file with nothing but the chunks that describe and hold the sound, or a CAF file with its size.

    libsndfile finds no sound behind a chunk whose odd size is not filled up, and is lost if another file follows. It
    does not know the size -1 of CAF, which stands for all that follows.

    Returns:
        The file up to the end of the sound; None if it is another file, or lacks one of the chunks.
    """
    with open_binary(path) as file:
        if file.read(4) == b"caff":
            return _caf_with_sound_behind(path, file, num_bytes(path))
        file.seek(0)
        found = _wav_sound(file, num_bytes(path))
        return None if found is None else _plain_wav(path, found)


class _WavSound(NamedTuple):
    head: bytes  # "RIFF", a size, "WAVE"
    about: bytes  # the chunks that describe the sound
    start: int
    stated: int  # bytes
    size: int  # bytes, at most `stated` if no sound follows behind
    others: list[tuple[int, int]]  # start and end of further chunks of sound


def _wav_sound(file: BinaryIO, end: int) -> _WavSound | None:
    head, about, large = file.read(12), b"", 0
    if not head.startswith((b"RIFF", b"RIFX", b"RF64")) or head[8:] != b"WAVE":
        return None
    order = ">" if head.startswith(b"RIFX") else "<"
    for name, stated, start in _chunks(file, 12, order):
        if name in (b"fmt ", b"fact"):
            if len(about) + stated > MOST_BEFORE_SOUND:  # a size that a damaged file states
                return None
            file.seek(start - SMALLEST_CHUNK)
            about += file.read(SMALLEST_CHUNK + stated) + bytes(stated % 2)
        if name == b"ds64":
            file.seek(start + 8)
            large = min(int.from_bytes(file.read(8), "little"), LARGEST)
        if name == b"data":
            stated = large if head.startswith(b"RF64") else stated
            size = stated
            while not _only_chunks(file, start + size, end, order):
                size += 1 << 32
                if start + size > end:
                    size = end - start
            return _WavSound(head, about, start, stated, size, _more_data(file, start + size + size % 2, end, order))
    return None


def _more_data(file: BinaryIO, offset: int, end: int, order: str) -> list[tuple[int, int]]:
    """Lists start and end of further chunks of sound from `offset`."""
    if offset >= end:
        return []
    return [
        (start, min(start + size, end))
        for name, size, start in _chunks(file, offset, order)
        if name == b"data" and start <= end  # libsndfile reads the last, even if it is empty
    ]


def _plain_wav(path: Source, sound: _WavSound) -> Parts:
    head, about, start, _, size, others = sound
    ranges = [(start, min(start + size, num_bytes(path))), *others]
    size += sum(end - start for start, end in others)
    if size < 1 << 32:
        order = ">" if head.startswith(b"RIFX") else "<"
        head = head.replace(b"RF64", b"RIFF")
        return Parts(path, head + about + struct.pack(order + "4sI", b"data", size), ranges)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, size + start, size, 0, 0)
    return Parts(path, b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + about + b"data" + b"\xff" * 4, ranges)


def _wav_with_sound_behind(path: Source, file: BinaryIO, end: int) -> Parts | None:
    found = _wav_sound(file, end)
    return None if found is None or (found.size <= found.stated and not found.others) else _plain_wav(path, found)


def _aiff_with_sound_behind(path: Source, file: BinaryIO, end: int) -> Parts | None:
    common = None
    for name, stated, start in _chunks(file, 12, ">"):  # noqa: B007 - used behind the loop
        if name == b"COMM":
            common = start
        if name == b"SSND":
            break
    else:
        return None
    if common is None or start > MOST_BEFORE_SOUND or stated == 0 or _only_chunks(file, start + stated, end, ">"):
        return None
    file.seek(0)
    head = bytearray(file.read(start))
    head[4:8] = head[common + 2 : common + 6] = head[start - 4 : start] = bytes(4)  # libsndfile reads to the end then
    return Parts(path, bytes(head), [(start, end)])


def _caf_with_sound_behind(path: Source, file: BinaryIO, end: int) -> Parts | None:
    start, offset = 0, 8
    file.seek(offset)
    while len(header := file.read(12)) == 12:
        name, size = struct.unpack(">4sq", header)
        offset += 12
        if name == b"data" and not start:
            start = offset
            if size > end - offset:  # cut short
                return None
        if not re.fullmatch(rb"[ -~]{4}", name) or not 0 <= size <= end - offset:
            break  # this is sound
        offset += size
        file.seek(offset)
    else:
        return None
    if not 0 < start <= MOST_BEFORE_SOUND:
        return None
    file.seek(0)
    return Parts(path, file.read(start - 8) + struct.pack(">q", end - start), [(start, end)])


def _au_with_sound_behind(path: Source, file: BinaryIO, end: int) -> Parts | None:
    head = file.read(24)
    start, size = struct.unpack(("<" if head.startswith(b"dns.") else ">") + "4x2I", head[:12])
    if start + size + SMALLEST_CHUNK > end:
        return None
    return Parts(path, head[:8] + b"\xff" * 4 + head[12:], [(len(head), end)])


def _chunks(file: BinaryIO, offset: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, stated size and start of the chunks of a RIFF or AIFF file from `offset`."""
    file.seek(offset)
    while len(header := file.read(SMALLEST_CHUNK)) == SMALLEST_CHUNK:
        name, size = struct.unpack(order + "4sI", header)
        offset += SMALLEST_CHUNK
        yield name, size, offset
        offset += size
        if size % 2:  # a byte fills up an odd size; some programs forget it
            file.seek(offset)
            following = file.read(SMALLEST_CHUNK)
            offset += following[1:5] in KNOWN_CHUNKS or following[:4] not in KNOWN_CHUNKS
        file.seek(offset)


def _only_chunks(file: BinaryIO, offset: int, end: int, order: str) -> bool:
    """Whether no sound follows from `offset`: chunks, of which the last may be cut short, an ID3v1 tag, or padding."""
    if 0 < end - offset <= MOST_PADDING:
        file.seek(offset)
        rest = file.read(end - offset)
        if not rest.strip(b"\0") or (rest.startswith(b"TAG") and len(rest) == ID3V1_BYTES):
            return True
    for start in {offset, offset + offset % 2}:  # the byte that fills up an odd size may be missing
        if end - start < SMALLEST_CHUNK:
            return True
        position = start
        for name, size, body in _chunks(file, start, order):
            position = body + size
            plausible = re.fullmatch(rb"[ -~]{4}", name) and name not in FILE_STARTS
            if not plausible or (position > end and name not in METADATA_CHUNKS | {b"data"}):
                break
        else:
            return True
    return False

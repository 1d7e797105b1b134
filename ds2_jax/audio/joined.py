"""Refuses files joined end to end of which only the first would be read, without an error."""

import mmap
import re
import struct

from ds2_jax.audio.parts import Source, contents
from ds2_jax.system.errors import InputError

# The starts of files of which libsndfile and ffmpeg read only the first. They are long enough not to occur by chance.
STARTS = re.compile(
    rb"caff\x00\x01..desc"  # CAF
    rb"|FORM....AIF[FC]"
    rb"|FLV\x01.\x00\x00\x00\x09"
    rb"|TTA1[\x01\x02]\x00.{8}"
    rb"|0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel",  # WMA and WMV
    re.DOTALL,
)
AUDIO_STARTS = re.compile(
    rb"(?:RIFF|RIFX|RF64)....WAVE|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02|NIST_1A\n|" + STARTS.pattern, re.DOTALL
)
LARGE = 1  # an MP4 box of which the size follows


def check_single(source: Source) -> None:
    """Raises InputError if another file of its kind follows a CAF, AIFF, FLV, TTA, WMA or MP4 file."""
    with contents(source) as data:
        offset = _second_mp4(data) if data[4:8] == b"ftyp" else _second(data)
    if offset:
        raise InputError(f"{source} must hold one recording, got another at byte {offset}. Divide it there.")


def another_recording(source: Source, start: int) -> int:
    """Returns the byte at which a recording starts in a file, from `start`; 0 if there is none."""
    with contents(source) as data:
        found = AUDIO_STARTS.search(data, start)
    return found.start() if found else 0


def _second(data: bytes | mmap.mmap) -> int:
    first = STARTS.match(data)
    offset = data.find(first[0][:4], 4) if first else -1
    while offset >= 0:
        if STARTS.match(data, offset):
            return offset
        offset = data.find(data[:4], offset + 1)
    return 0


def _second_mp4(data: bytes | mmap.mmap) -> int:
    """Walks over the boxes of an MP4 file. All fragments ("moof") are read, even behind another start."""
    offset = second = 0
    while len(header := data[offset : offset + 16]) >= 8:
        size, name = struct.unpack(">I4s", header[:8])
        if name == b"moof":
            return 0
        if name == b"ftyp" and offset:
            second = second or offset
        if size == LARGE and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if size < 8:
            break
        offset += size
    return second

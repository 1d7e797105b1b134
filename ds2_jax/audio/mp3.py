"""Finds the frames of MP3 files, so that all of the sound is read, whatever the first frame or the tags say.

libsndfile takes the length from the Xing or Info header in the first frame, and stops there even if more frames follow,
as in files joined end to end. Without that header, it estimates the length from the size of the file, tags included.
"""

import mmap
from typing import NamedTuple

from ds2_jax.audio.parts import Source, contents

# Bit rates (kbit/s) and sample rates (Hz) of Layer III for each value of the two version bits (ISO 11172-3 and 13818-3;
# 0 is MPEG 2.5).
BIT_RATES = {3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
BIT_RATES |= dict.fromkeys((0, 2), (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
MPEG_1 = 3
MONO = 3
LYRICS_LONGEST = 5100  # bytes of Lyrics3 version 1, which does not state its size


class Frames(NamedTuple):
    """The frames of an MP3 file.

    Attributes:
        start: the byte at which the first frame starts, even if it holds a Xing or Info header.
        end: the byte behind the last frame and the tags that follow it.
        ranges: start and end of each run of frames, in bytes, without tags and without Xing or Info headers.
        num_frames: the number of frames in them.
        samples_per_frame: samples per channel in a frame.
        stated: the number of frames that the first Xing or Info header states; None without it.
        header: the four bytes at the start of the first frame.
        damage: bytes between frames that are neither a frame nor a tag, described; "" if there are none.
        changes: whether the version, the sample rate or the number of channels changes.
    """

    start: int
    end: int
    ranges: list[tuple[int, int]]
    num_frames: int
    samples_per_frame: int
    stated: int | None
    header: bytes
    damage: str
    changes: bool

    @property
    def num_samples(self) -> int:
        """The number of samples per channel in the frames."""
        return self.num_frames * self.samples_per_frame


class _Frame(NamedTuple):
    size: int
    kind: bytes  # what all frames of a stream have in common: version, sample rate, and whether they are mono
    side_bytes: int  # bytes between the header and the place of "Xing"
    num_samples: int


def find_frames(source: Source) -> Frames | None:
    """Reads all frame headers of an MP3 file. Returns None if it has no frames. Bytes behind the last are ignored."""
    with contents(source) as data:
        return _find(data)


def _find(data: bytes | mmap.mmap) -> Frames | None:
    offset = start = num_frames = 0
    ranges: list[tuple[int, int]] = []
    first: _Frame | None = None
    header, stated, damage, changes = b"", None, "", False
    while offset < len(data):
        frame = _frame(data[offset : offset + 4])
        if frame is None:
            size = _tag_bytes(data, offset)
            if not size:
                if (following := _next_frame(data, offset)) < 0:
                    break
                size = following - offset
                damage = damage or (f"{size} bytes at byte {offset} that are no MP3 frame" if ranges else "")
            offset += size
            continue
        if first is None:
            first, start, header = frame, offset, data[offset : offset + 4]
        changes |= frame.kind != first.kind
        place, end = offset + 4 + frame.side_bytes, offset + frame.size
        if data[place : place + 4] in (b"Xing", b"Info"):
            if not ranges and stated is None and data[place + 7] & 1:
                stated = int.from_bytes(data[place + 8 : place + 12], "big")
        elif end <= len(data):  # a frame that is cut short cannot be decoded
            num_frames += 1
            joins = ranges and ranges[-1][1] == offset
            ranges[-1:] = [(ranges[-1][0], end)] if joins else [*ranges[-1:], (offset, end)]
        offset = end
    if first is None:
        return None
    return Frames(start, offset, ranges, num_frames, first.num_samples, stated, header, damage, changes)


def _next_frame(data: bytes | mmap.mmap, offset: int) -> int:
    """Returns where the next two frames in a row start, or a frame that ends the file; -1 if there are none."""
    while (offset := data.find(b"\xff", offset + 1)) >= 0:
        if frame := _frame(data[offset : offset + 4]):
            end = offset + frame.size
            if end == len(data) or _frame(data[end : end + 4]):
                return offset
    return -1


def _frame(header: bytes) -> _Frame | None:
    """Reads the header of a Layer III frame; None if it is none, or does not state its size."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate, frequency = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or rate in (0, 15) or frequency == 3:  # reserved values, or a frame without a stated size
        return None
    size = (144 if version == MPEG_1 else 72) * 1000 * BIT_RATES[version][rate] // SAMPLE_RATES[version][frequency]
    size += header[2] >> 1 & 1
    side = (17, 32) if version == MPEG_1 else (9, 17)
    kind = bytes([header[1] & 0xFE, frequency, header[3] >> 6 == MONO])
    return _Frame(size, kind, side[header[3] >> 6 != MONO], 1152 if version == MPEG_1 else 576)


def _tag_bytes(data: bytes | mmap.mmap, offset: int) -> int:
    """Returns the size of the tag at `offset`; 0 if there is none.

    Source: ID3v2.4.0 structure, section 3; ID3v1; APEv2 (Hydrogenaudio); Lyrics3 (id3.org).
    """
    start = data[offset : offset + 32]
    if start.startswith((b"ID3", b"3DI")):
        return id3_bytes(start)
    if start.startswith(b"TAG+"):
        return 227
    if start.startswith(b"TAG"):
        return 128
    if start.startswith(b"APETAGEX"):
        size, flags = int.from_bytes(start[12:16], "little"), int.from_bytes(start[20:24], "little")
        # The stated size counts the footer, not the header. Before a header stands nothing, before a footer all items.
        return 32 + size if flags >> 29 & 1 else 32
    if start.startswith(b"LYRICSBEGIN"):
        for end, longest in ((b"LYRICSEND", LYRICS_LONGEST), (b"LYRICS200", len(data))):
            if (found := data.find(end, offset, offset + longest)) >= 0:
                return found + len(end) - offset
    if (num_zeros := len(start) - len(start.lstrip(b"\0"))) > 0:
        return num_zeros
    # APEv1 and some APEv2 tags have no header: their items come first, and a footer states their size.
    footer = data.find(b"APETAGEX", offset)
    if footer >= 0 and footer + 32 - int.from_bytes(data[footer + 12 : footer + 16], "little") == offset:
        return footer + 32 - offset
    return 0


def id3_bytes(tag: bytes) -> int:
    """Returns the size of the ID3v2 tag whose first ten bytes are given; 0 if there is none.

    The last four of the bytes, of 7 bits each, state the size of what follows them, without a footer of ten bytes.
    """
    if tag.startswith(b"3DI"):  # a footer
        return 10
    if not tag.startswith(b"ID3") or len(tag) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))


def length_header(frames: Frames) -> bytes:
    """Makes a frame with a Xing header that states the number of frames. It goes in front of them.

    Source: the Xing VBR header; flag 1 stands for the number of frames.
    """
    one, two, _, four = frames.header
    for rate in range(1, 15):  # the smallest frame that holds the header
        header = bytes([one, two | 1, rate << 4 | frames.header[2] & 0x0C, four])  # no checksum, no padding
        frame = _frame(header)
        assert frame is not None
        body = bytes(frame.side_bytes) + b"Xing" + (1).to_bytes(4, "big") + frames.num_frames.to_bytes(4, "big")
        if 4 + len(body) <= frame.size:
            return (header + body).ljust(frame.size, b"\0")
    raise AssertionError("a frame of the highest bit rate holds the header")

"""Refuses VOC and FLV files that are cut short. libsndfile and ffmpeg read a shorter recording without an error."""

import mmap

from ds2_jax.audio.parts import Source, contents
from ds2_jax.audio.waveform import unusable

VOC = b"Creative Voice File\x1a"
FLV = b"FLV\x01"
FLV_BACK = 4  # bytes: before each tag stands the size of the tag before it
FLV_TAG = 11  # bytes: type, size of the body, time, stream
FLV_TYPES = frozenset({8, 9, 18})  # sound, picture, data


def check_not_cut(source: Source) -> None:
    """Raises InputError if a VOC or FLV file ends within a block or a tag."""
    with contents(source) as data:
        if data[: len(VOC)] == VOC:
            missing = _missing_voc(data)
        elif data[: len(FLV)] == FLV:
            missing = _missing_flv(data)
        else:
            return
    if missing > 0:
        raise unusable(source, "be complete", f"a file that ends {missing} bytes before the end of a block")


def _missing_voc(data: bytes | mmap.mmap) -> int:
    """Counts the bytes that the last block lacks. Each block has a type, three bytes of size, and a body."""
    offset = int.from_bytes(data[20:22], "little")
    while offset < len(data) and data[offset] != 0:  # the type of the last block, which has no size
        offset += 4 + int.from_bytes(data[offset + 1 : offset + 4], "little")
    return offset - len(data)


def _missing_flv(data: bytes | mmap.mmap) -> int:
    """Counts the bytes that the last tag lacks. A recorder that is stopped may leave out its size behind it."""
    offset = int.from_bytes(data[5:9], "big") + FLV_BACK
    while FLV_BACK <= offset < len(data) and data[offset] & 0x1F in FLV_TYPES:
        offset += FLV_TAG + int.from_bytes(data[offset + 1 : offset + 4], "big") + FLV_BACK
    return offset - FLV_BACK - len(data)

"""Small whole files of each kind, to be damaged. The same bytes each time, as long as libsndfile is the same."""

import functools
import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Sequence

import numpy as np
import soundfile

RATE = 16_000
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def samples(num_channels: int = 1, seconds: float = 0.25) -> np.ndarray:
    """[S, C] float64: tones and noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = np.stack([0.3 * np.sin(2 * np.pi * 220 * (channel + 1) * time) for channel in range(num_channels)], axis=1)
    return tones + np.random.default_rng(0).normal(0, 0.01, tones.shape)


def encode(audio_format: str, subtype: str, num_channels: int = 1, rate: int = RATE) -> bytes:
    """An audio file, without the time and the random number that libsndfile writes into some."""
    file = io.BytesIO()
    soundfile.write(file, samples(num_channels), rate, format=audio_format, subtype=subtype)
    data = bytearray(file.getvalue())
    if (peak := data.find(b"PEAK")) >= 0:
        data[peak + 12 : peak + 16] = bytes(4)
    if audio_format == "OGG":
        for start in _pages(data):
            data[start + 14 : start + 18] = bytes(4)
    return mend_ogg(bytes(data))


def _pages(data: bytes | bytearray) -> list[int]:
    return [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]


def mend_ogg(data: bytes) -> bytes:
    """Makes the checksum of every Ogg page right, so that damage reaches the decoder behind it."""
    mended = bytearray(data)
    for start in _pages(data):
        header = mended[start : start + 27]
        if len(header) < 27:
            continue
        end = start + 27 + header[26]
        end += sum(mended[start + 27 : end])
        mended[start + 22 : start + 26] = bytes(4)
        page = bytes(mended[start:end]).translate(REVERSED)
        crc = zlib.crc32(page, 0xFFFFFFFF) ^ 0xFFFFFFFF
        mended[start + 22 : start + 26] = crc.to_bytes(4, "big").translate(REVERSED)
    return bytes(mended)


def id3(data: bytes) -> bytes:
    """An MP3 behind a tag with a title."""
    frame = b"TIT2" + (20).to_bytes(4, "big") + b"\0\0" + b"\x03" + b"title" * 3 + b"\0" * 4
    return b"ID3\x04\0\0" + bytes([0, 0, len(frame) >> 7, len(frame) & 0x7F]) + frame + data


def archive(members: Sequence[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar file, not yet compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name: str, content: bytes = b"content", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member of an archive; `fields` are those of TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def mend_tar(data: bytes) -> bytes:
    """Makes the checksum of every header of a tar file right where there seems to be one, and compresses it."""
    mended = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if mended[start + 257 : start + 262] == b"ustar":
            mended[start + 148 : start + 156] = b" " * 8
            mended[start + 148 : start + 156] = b"%06o\0 " % sum(mended[start : start + 512])
    return gzip.compress(bytes(mended), compresslevel=1, mtime=0)


@functools.cache
def sphere(num_channels: int = 1) -> bytes:
    """A Sphere file as NIST's tools write it: the number of samples in its header."""
    data = (samples(num_channels) * 32767).astype("<i2")
    fields = (
        f"NIST_1A\n   1024\nsample_count -i {len(data)}\nsample_rate -i {RATE}\nchannel_count -i {num_channels}\n"
        "sample_byte_format -s2 01\nsample_n_bytes -i 2\nsample_coding -s3 pcm\nsample_sig_bits -i 16\nend_head\n"
    )
    return fields.encode().ljust(1024) + data.tobytes()


def claim(data: bytes, place: int, layout: str, value: int) -> bytes:
    """`data` with a number, packed as `struct` has it, at `place`."""
    number = struct.pack(layout, value)
    return data[:place] + number + data[place + len(number) :]

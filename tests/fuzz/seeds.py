"""Makes small whole files of each kind, to be damaged. With the same libsndfile the bytes are always the same."""

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
    """Makes tones and noise, [S, C] float64."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = np.stack([0.3 * np.sin(2 * np.pi * 220 * (channel + 1) * time) for channel in range(num_channels)], axis=1)
    return tones + np.random.default_rng(0).normal(0, 0.01, tones.shape)


def encode(audio_format: str, subtype: str, num_channels: int = 1, rate: int = RATE) -> bytes:
    """Encodes an audio file and removes the time and the random number that libsndfile writes into some formats."""
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
    """Corrects the checksum of every Ogg page, so that the damage reaches the decoder."""
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
    """Puts an ID3 tag with a title before an MP3."""
    frame = b"TIT2" + (20).to_bytes(4, "big") + b"\0\0" + b"\x03" + b"title" * 3 + b"\0" * 4
    return b"ID3\x04\0\0" + bytes([0, 0, len(frame) >> 7, len(frame) & 0x7F]) + frame + data


def archive(members: Sequence[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Makes an uncompressed tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name: str, content: bytes = b"content", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Makes a member of an archive; `fields` are attributes of TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def mend_tar(data: bytes) -> bytes:
    """Corrects the checksum of everything that looks like a header in a tar file, and compresses the file."""
    mended = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if mended[start + 257 : start + 262] == b"ustar":
            mended[start + 148 : start + 156] = b" " * 8
            mended[start + 148 : start + 156] = b"%06o\0 " % sum(mended[start : start + 512])
    return gzip.compress(bytes(mended), compresslevel=1, mtime=0)


@functools.cache
def sphere(num_channels: int = 1) -> bytes:
    """Makes a Sphere file as NIST's tools do, with the number of samples in the header."""
    data = (samples(num_channels) * 32767).astype("<i2")
    fields = (
        f"NIST_1A\n   1024\nsample_count -i {len(data)}\nsample_rate -i {RATE}\nchannel_count -i {num_channels}\n"
        "sample_byte_format -s2 01\nsample_n_bytes -i 2\nsample_coding -s3 pcm\nsample_sig_bits -i 16\nend_head\n"
    )
    return fields.encode().ljust(1024) + data.tobytes()


def claim(data: bytes, place: int, layout: str, value: int) -> bytes:
    """Writes a number into `data` at `place`, packed in a format of `struct`."""
    number = struct.pack(layout, value)
    return data[:place] + number + data[place + len(number) :]

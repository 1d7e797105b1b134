"""Recordings of every format for the tests of reading."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.parts import AudioBytes
from ds2_jax.audio.reading import (
    audio_duration,
    read_audio,
)
from ds2_jax.system.errors import InputError

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Makes [S, C] float64: a sine with its own frequency and loudness in each channel."""
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.8 / (c + 1) * np.sin(2 * np.pi * 200 * (c + 1) * time) for c in range(channels)], axis=1)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype, format="NIST" if path.suffix == ".sph" else None)
    return path


def write_sphere(path: Path, samples: np.ndarray, sample_count: int, byte_format: str = "01", extra: str = "") -> Path:
    """Writes a NIST Sphere file by hand: a text header of 1024 bytes, then [S, C] int16."""
    lines = [
        "NIST_1A",
        "   1024",
        f"sample_count -i {sample_count}",
        f"sample_rate -i {RATE}",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {byte_format}",
        f"channel_count -i {samples.shape[1]}",
        "sample_coding -s3 pcm",
        *extra.splitlines(),
        "end_head\n",
    ]
    order = "<i2" if byte_format == "01" else ">i2"
    path.write_bytes("\n".join(lines).encode().ljust(1024) + samples.astype(order).tobytes())
    return path


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def assert_refused(path: Path, message: str, *, header: bool = True) -> None:
    """Checks that `read_audio` fails with "PATH must MESSAGE...", for the path and for the file's bytes.

    With `header`, the fault shows in the header, and `audio_duration` must fail in the same way.
    """
    message = f"^{re.escape(str(path))} must {message}"
    sources: list[Path | AudioBytes] = [path]
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        sources.append(AudioBytes(str(path), path.read_bytes()))
    for source in sources:
        with pytest.raises(InputError, match=message):
            read_audio(source, RATE)
        if header:
            with pytest.raises(InputError, match=message):
                audio_duration(source)


def mp3(path: Path, mode: str, *, stated_length: bool = True, tag_bytes: int = 0) -> Path:
    """Writes an MP3 of 3 s after an ID3 tag. Without `stated_length`, its first frame, which has the length, is cut."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44_100, 1))
    noise[:44_100] = 0  # a variable bit rate starts low
    soundfile.write(path, noise, 44_100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    assert (b"Info" if mode == "CONSTANT" else b"Xing") in data[:64]
    if not stated_length:
        data = data[data.index(data[:2], 4) :]
    tag = b"ID3\3\0\0" + bytes([0, 0, tag_bytes >> 7, tag_bytes & 0x7F]) + bytes(tag_bytes)
    path.write_bytes(tag + data)
    return path


def write_mp3_without_length(path: Path, samples: np.ndarray, rate: int, mode: str) -> Path:
    """Writes an MP3 without its first frame, which states the length."""
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    sync = data[:2]
    assert b"Info" in data[:64] or b"Xing" in data[:64]
    path.write_bytes(data[data.index(sync, 64) :])
    return path


def converted(source: Path, name: str, *options: str) -> Path:
    path = source.parent / name
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(source), *options, str(path)]
    subprocess.run(command, check=True)
    return path

"""Samples that come through a pipe, with and without the header of a WAV file."""

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.pcm import SampleFormat, read_pcm
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, tone


@pytest.mark.parametrize(
    ("subtype", "kind"), [("PCM_16", "<i2"), ("PCM_32", "<i4"), ("FLOAT", "<f4"), ("PCM_U8", "u1")]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_header_is_recognised(tmp_path: Path, subtype: str, kind: str, channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.3, 8_000, channels), 8_000, subtype)
    data = bytearray(path.read_bytes())
    data[4:8] = data[data.index(b"data") + 4 : data.index(b"data") + 8] = b"\xff" * 4  # as ffmpeg writes into a pipe
    stream = read_pcm(io.BytesIO(data), None, "s16le")
    blocks = list(stream.blocks)
    samples = np.concatenate(blocks)
    assert (stream.sample_rate, samples.dtype, samples.shape) == (8_000, np.dtype(kind), (2_400, channels))
    assert len(blocks) > 5
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0]
    full = {"<f4": 1.0, "u1": 128.0, "<i2": 2.0**15, "<i4": 2.0**31}[kind]
    np.testing.assert_allclose((samples.astype(np.float64) - (128 if kind == "u1" else 0)) / full, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["s16le", "s32le", "f32le", "u8"])
def test_samples_without_a_header(name: SampleFormat) -> None:
    dtype = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "u8": "u1"}[name]
    samples = np.arange(1, 2_002).astype(dtype)
    stream = read_pcm(io.BytesIO(samples.tobytes() + b"\1"), RATE, name)
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks))[: len(samples), 0], samples)


def header(coding: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, coding, channels, rate, rate * 2, 2, bits)
    return b"RIFF\xff\xff\xff\xffWAVE" + fmt + b"data\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("data", "rate", "message"),
    [
        (b"", RATE, r"must hold samples, got none\. Pipe"),
        (bytes(100), None, r"must start with the header of a WAV file, or --sample-rate must be given, got neither"),
        (
            header(coding=17),
            None,
            r"must hold samples of 8, 16 or 32 bits, or floats of 32, got coding 17 with 16 bits",
        ),
        (header(bits=24), None, r"must hold samples .*got coding 1 with 24 bits\. Convert it"),
        (header(rate=100), None, r"must have a rate of 4000 to 768000 Hz, got 100"),
        (header()[:30], None, r"must be a whole WAV file, got a header without samples"),
    ],
)
def test_what_is_no_sound_is_refused(data: bytes, rate: int | None, message: str) -> None:
    with pytest.raises(InputError, match=f"^Standard input {message}"):
        list(read_pcm(io.BytesIO(data), rate, "s16le").blocks)


def test_a_chunk_in_a_pipe_may_state_any_size() -> None:
    reader, writer = os.pipe()
    os.write(writer, header()[:36] + b"LIST" + struct.pack("<I", 2**32 - 2) + bytes(3000))
    os.close(writer)
    tracemalloc.start()
    try:
        with os.fdopen(reader, "rb") as pipe, pytest.raises(InputError, match="got a header without samples"):
            read_pcm(pipe, None, "s16le")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()

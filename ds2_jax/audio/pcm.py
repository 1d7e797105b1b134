"""Reads samples as they come through a pipe: with the header of a WAV file, or without one."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

SampleFormat = Literal["s16le", "s32le", "f32le", "u8"]
"""Coding of samples without a header, by ffmpeg's names."""
DTYPES: dict[str, str] = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "u8": "u1"}
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
"""Codings in the header of a WAV file."""
WAV_FORMATS: dict[tuple[int, int], str] = {(PCM, 16): "s16le", (PCM, 32): "s32le", (PCM, 8): "u8", (FLOAT, 32): "f32le"}
BLOCK_SECONDS = 0.04
READ_BYTES = 1 << 16
"""Most bytes of a chunk in front of the samples that are held at once; a header may state any size."""


class PcmStream(NamedTuple):
    """Samples that come through a pipe.

    Attributes:
        sample_rate: in Hz.
        blocks: [S, C] in the coding of the stream, as they come.
    """

    sample_rate: int
    blocks: Iterator[np.ndarray]


def read_pcm(pipe: BinaryIO, sample_rate: int | None, sample_format: SampleFormat) -> PcmStream:
    """Begins to read a pipe.

    Args:
        pipe: the pipe. If it starts with the header of a WAV file, the header tells rate and coding; its size does not
            matter.
        sample_rate: sample rate in Hz of samples without a header.
        sample_format: coding of samples without a header, of one channel.

    Raises:
        InputError: nothing comes, samples without a header have no rate, or a header has another coding or rate.
    """
    head = pipe.read(12)
    if not head:
        raise InputError("Standard input must hold samples, got none. Pipe them into the command.")
    if head.startswith(b"RIFF") and head[8:] == b"WAVE":
        rate, channels, name = read_header(pipe, "Standard input")
        return PcmStream(rate, _blocks(pipe, b"", rate, channels, name))
    if sample_rate is None:
        raise InputError(
            "Standard input must start with the header of a WAV file, or --sample-rate must be given, got neither. "
            "Add --sample-rate and --sample-format, or let ffmpeg write WAV: ffmpeg -i URL -f wav - | ..."
        )
    return PcmStream(sample_rate, _blocks(pipe, head, sample_rate, 1, sample_format))


def read_header(pipe: BinaryIO, source: str) -> tuple[int, int, str]:
    """Reads the chunks of a WAV file, which follow its first 12 bytes, up to the samples.

    Args:
        pipe: the file.
        source: what errors call it.

    Returns:
        The rate in Hz, the number of channels, and the coding's name.

    Raises:
        InputError: there are no samples, or they have another coding or rate than those that are read.
    """
    found: tuple[int, int, str] | None = None
    while len(header := pipe.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"data" and found:
            rule, advice = f"have a rate of {MIN_RATE} to {MAX_RATE} Hz", "Resample it: ffmpeg -i OLD -ar 16000 ..."
            require(MIN_RATE <= found[0] <= MAX_RATE, source, rule, found[0], advice)
            return found
        content = pipe.read(min(size + size % 2, READ_BYTES))
        left = size + size % 2 - len(content)
        while left and (skipped := pipe.read(min(left, READ_BYTES))):
            left -= len(skipped)
        if name == b"fmt " and len(content) >= 16:
            coding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if coding == EXTENSIBLE and len(content) >= 26:
                coding = struct.unpack("<H", content[24:26])[0]
            if (coding, bits) not in WAV_FORMATS or not channels:
                rule = "hold samples of 8, 16 or 32 bits, or floats of 32"
                advice = "Convert it: ffmpeg -i - -c:a pcm_s16le -f wav -."
                raise InputError(f"{source} must {rule}, got coding {coding} with {bits} bits. {advice}")
            found = rate, channels, WAV_FORMATS[coding, bits]
    raise InputError(f"{source} must be a whole WAV file, got a header without samples. Give another one.")


def _blocks(pipe: BinaryIO, head: bytes, rate: int, channels: int, name: str) -> Iterator[np.ndarray]:
    dtype = np.dtype(DTYPES[name])
    frame = dtype.itemsize * channels
    size = max(1, round(BLOCK_SECONDS * rate)) * frame
    rest = head
    while data := pipe.read(size - len(rest) % frame):
        data = rest + data
        whole = len(data) // frame * frame
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], dtype).reshape(-1, channels)

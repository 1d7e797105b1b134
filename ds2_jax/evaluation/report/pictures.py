"""What the page shows and plays of a recording: its spectrogram as PNG and its sound as WAV."""

import base64
import functools
import io
import struct
import zlib
from collections.abc import Callable

import jax
import numpy as np
import soundfile

from ds2_jax.config import FeatureConfig
from ds2_jax.model.features import extract_features

QUIETEST, LOUDEST = -1.0, 3.5
"""Ends of the colours, in standard deviations of the spectrogram."""
NUM_COLOURS = 64
"""More cannot be told apart, and the file would be twice as large."""


def spectrogram_maker(features: FeatureConfig) -> Callable[[np.ndarray], np.ndarray]:
    """The function from a waveform [S] float32 to its spectrogram [T, F] float32 as the model sees it."""
    extract = jax.jit(functools.partial(extract_features, config=features))

    def make(waveform: np.ndarray) -> np.ndarray:
        seconds = 1
        while seconds * features.sample_rate < len(waveform):
            seconds *= 2  # few shapes to compile
        padded = np.zeros((1, seconds * features.sample_rate), np.float32)
        padded[0, : len(waveform)] = waveform
        spectrograms, num_frames = extract(padded, np.array([len(waveform)], np.int32))
        return np.asarray(spectrograms)[0, : int(num_frames[0])]

    return make


def spectrogram_png(spectrogram: np.ndarray) -> bytes:
    """Draws a normalised spectrogram [T, F] float32: a pixel for each frame and bin, low frequencies at the bottom."""
    from matplotlib import colormaps

    scaled = (spectrogram - QUIETEST) / (LOUDEST - QUIETEST)
    colours = np.clip(scaled * NUM_COLOURS, 0, NUM_COLOURS - 1).astype(np.uint8)
    palette = colormaps["magma"](np.linspace(0, 1, NUM_COLOURS), bytes=True)[:, :3]
    return _png(np.flipud(colours.T), palette)


def _png(pixels: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG file of [height, width] uint8 places in a palette [colours, 3] uint8."""
    height, width = pixels.shape
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with its filter: 0, none
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),  # 8 bits, palette
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def sound(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A WAV file of a waveform [S] float32; what lies beyond full scale is clipped.

    FLAC takes half the room, but Chromium 150 fails to seek in some that last less than a second.
    """
    samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """The bytes of a file of a MIME type, as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

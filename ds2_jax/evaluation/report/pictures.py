"""Draws the spectrogram of a recording as PNG, and writes its sound as WAV."""

import base64
import functools
import io
from collections.abc import Callable

import jax
import numpy as np
import soundfile
from PIL import Image

from ds2_jax.config import FeatureConfig
from ds2_jax.model.features import extract_features, without_statistics

QUIETEST = -1.0
"""The value of the first colour, in standard deviations of the spectrogram."""
LOUDEST = 3.5
"""The value of the last colour, in standard deviations of the spectrogram."""
NUM_COLOURS = 64
"""More colours look the same and make the file twice as large."""


def spectrogram_maker(features: FeatureConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Makes a function from a waveform [S] float32 to the spectrogram [T, F] float32 that the model sees."""
    extract = jax.jit(functools.partial(extract_features, config=without_statistics(features)))

    def make(waveform: np.ndarray) -> np.ndarray:
        seconds = 1
        while seconds * features.sample_rate < len(waveform):
            seconds *= 2  # so that few shapes are compiled
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
    image = Image.fromarray(np.flipud(colours.T))
    image.putpalette(colormaps["magma"](np.linspace(0, 1, NUM_COLOURS), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def sound(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Writes a waveform [S] float32 as a WAV file. Samples beyond full scale are clipped.

    FLAC files are half as large, but Chromium 150 cannot seek in some that are shorter than a second.
    """
    samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """Makes a data: URI that holds the bytes of a file; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

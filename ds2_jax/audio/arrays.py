"""Converts samples in memory to a mono waveform at the model's sample rate."""

from collections.abc import Iterator

import numpy as np

from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE, block_samples, waveform_blocks
from ds2_jax.system.checks import require

MAX_CHANNELS = 64
"""An array with more channels most likely has its axes in the wrong order."""


def array_blocks(samples: np.ndarray, file_rate: int | None, sample_rate: int) -> Iterator[np.ndarray]:
    """Scales, mixes down and resamples samples in memory, block by block.

    Args:
        samples: [S] or [S, C], float with full scale 1, or integers with the full scale of their type.
        file_rate: sample rate of `samples` in Hz.
        sample_rate: sample rate of the result in Hz.

    Returns:
        Consecutive blocks of [S] float32. A file with the same samples gives the same waveform.

    Raises:
        InputError: the array is empty, has another shape or type, or contains NaN or infinity; or the rate is missing
            or out of range.
    """
    advice = "Give the rate of the samples in Hz."
    require(file_rate is not None, "sample_rate", "be given with an array", file_rate, advice)
    assert file_rate is not None
    require(MIN_RATE <= file_rate <= MAX_RATE, "sample_rate", f"be {MIN_RATE} to {MAX_RATE} Hz", file_rate, advice)
    require(int(file_rate) == file_rate, "sample_rate", "be a whole number of Hz", file_rate, "Round it.")
    return _blocks(_channels(samples), int(file_rate), sample_rate)


def scaled_samples(samples: np.ndarray) -> np.ndarray:
    """Converts samples in memory to [S, C] float32 with full scale 1; see `array_blocks`."""
    return _scaled(_channels(samples))


def _channels(samples: np.ndarray) -> np.ndarray:
    """Checks samples and returns them as [S, C]."""
    kind, shape = samples.dtype, samples.shape
    require(kind.kind in "fiu", "audio", "hold floats or integers", str(kind), "Convert the array.")
    rule = f"have the shape [samples] or [samples, channels] with at most {MAX_CHANNELS} channels"
    right = samples.ndim == 1 or (samples.ndim == 2 and 1 <= shape[1] <= MAX_CHANNELS)
    require(right, "audio", rule, shape, "Transpose or flatten it.")
    return samples if samples.ndim == 2 else samples[:, None]


def _blocks(samples: np.ndarray, file_rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    size = block_samples(samples.shape[1])
    blocks = (_scaled(samples[start : start + size]) for start in range(0, len(samples), size))
    yield from waveform_blocks(blocks, file_rate, sample_rate, "audio")


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Scales integers to full scale 1. For unsigned integers the middle of the range is silence, as in WAV."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    silence = full if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - silence) / full).astype(np.float32)

"""Length arithmetic, analysis windows and mel bands: NumPy and integers alone, so that nothing here loads JAX.

The counting functions take Python integers, NumPy arrays and JAX arrays alike.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ds2_jax.config.settings import MEL_BREAK, FeatureConfig

if TYPE_CHECKING:
    import jax

Count = TypeVar("Count", int, np.ndarray, "jax.Array")


def count_frames(num_samples: Count, hop_length: int) -> Count:
    """Spectrogram frames of a centred transform: 1 + num_samples // hop_length, and 0 for an empty row.

    Args:
        num_samples: [...] int, valid samples.
        hop_length: samples between frames.
    """
    return (num_samples // hop_length + 1) * (num_samples > 0)


def conv_output_lengths(input_lengths: Count, time_reduction: int = 2) -> Count:
    """Counts the valid frames left after the two convolutions.

    An odd kernel padded by half its length on both sides leaves ceil(n / stride) frames, whatever its size.

    Args:
        input_lengths: [...] int, valid spectrogram frames (10 ms each).
        time_reduction: product of the convolutions' strides over time.

    Returns:
        [...] int, valid output frames (20 ms each with the default reduction); 0 stays 0.

    Source: Deep Speech 2 front end; deepspeech.pytorch `get_seq_lens` (time stride 2, then 1).
    """
    return -(-input_lengths // time_reduction)


def ctc_min_frames(labels: Sequence[int]) -> int:
    """Fewest output frames that can carry `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def ctc_min_samples(min_frames: Count, hop_length: int, time_reduction: int) -> Count:
    """Fewest samples that give `min_frames` output frames ([...] int, at least 1); of no frame they are 1 too."""
    return (min_frames - 1) * time_reduction * hop_length


def mel_bands(config: FeatureConfig) -> np.ndarray:
    """Share of each bin's energy in each mel band, [num_mels, bins] float64.

    A band is a triangle from the centre of the one below it to that of the one above it. Written here since librosa,
    whose bands these are, takes seconds to load.
    """
    edges = frequencies(np.linspace(0, 1, config.num_mels + 2), config)
    bins = np.linspace(0, config.sample_rate / 2, config.fft_length // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    shares: np.ndarray = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return shares


def frequencies(heights: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Hz at heights of the spectrogram, 0 at its bottom to 1 at its top."""
    highest = config.sample_rate / 2
    if not config.num_mels:
        return heights * highest
    return MEL_BREAK * np.expm1(heights * math.log1p(highest / MEL_BREAK))

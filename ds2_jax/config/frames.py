"""Length arithmetic and mel bands, in NumPy, so that importing this module does not load JAX.

The functions that count accept Python integers, NumPy arrays and JAX arrays.
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
    """Counts the spectrogram frames of a centred transform: 1 + num_samples // hop_length, but 0 for an empty row.

    Args:
        num_samples: [...] int, valid samples.
        hop_length: number of samples between frames.
    """
    return (num_samples // hop_length + 1) * (num_samples > 0)


def conv_output_lengths(input_lengths: Count, time_reduction: int = 2) -> Count:
    """Counts the valid frames left after the two convolutions.

    An odd kernel with half its length as padding on both sides leaves ceil(n / stride) frames, whatever its size.

    Args:
        input_lengths: [...] int, valid spectrogram frames (10 ms each).
        time_reduction: product of the convolutions' strides over time.

    Returns:
        [...] int, valid output frames (20 ms each with the default reduction); 0 stays 0.

    Source: Deep Speech 2 front end; deepspeech.pytorch `get_seq_lens` (time stride 2, then 1).
    """
    return -(-input_lengths // time_reduction)


def ctc_min_frames(labels: Sequence[int]) -> int:
    """Counts the output frames that `labels` need at least: one for each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def ctc_min_samples(min_frames: Count, hop_length: int, time_reduction: int) -> Count:
    """Counts the samples that `min_frames` output frames need at least. `min_frames` ([...] int) must be at least 1."""
    return (min_frames - 1) * time_reduction * hop_length


def mel_bands(config: FeatureConfig) -> np.ndarray:
    """Computes the share of each bin's energy in each mel band, [num_mels, bins] float64.

    A band is a triangle from the centre of the band below to the centre of the band above. The bands are those of
    librosa, which takes seconds to load.
    """
    edges = frequencies(np.linspace(0, 1, config.num_mels + 2), config)
    bins = np.linspace(0, config.sample_rate / 2, config.fft_length // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    shares: np.ndarray = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return shares


def frequencies(heights: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Returns the frequency in Hz at each height of the spectrogram, from 0 at the bottom to 1 at the top."""
    highest = config.sample_rate / 2
    if not config.num_mels:
        return heights * highest
    return MEL_BREAK * np.expm1(heights * math.log1p(highest / MEL_BREAK))

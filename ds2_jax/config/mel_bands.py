"""The mel filter bank, in NumPy, so that nothing here loads JAX."""

import math

import numpy as np

from ds2_jax.config.feature_settings import MEL_BREAK, FeatureConfig


def mel_bands(config: FeatureConfig) -> np.ndarray:
    """Computes the share of each bin's energy in each mel band, [num_mels, bins] float64.

    A band is a triangle from the centre of the band below to the centre of the band above. The bands are those of
    librosa, which is not used here because importing it takes seconds.
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

"""Computes normalised log spectrograms from waveforms, for training, evaluation and transcription alike."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from ds2_jax.config import FeatureConfig
from ds2_jax.config.feature_settings import FLOOR, LEAST_VARIANCE
from ds2_jax.config.frames import count_frames
from ds2_jax.config.mel_bands import mel_bands
from ds2_jax.model.masks import mask_from_lengths


def without_statistics(config: FeatureConfig) -> FeatureConfig:
    """Returns features that look the same and need no statistics of a training set, for pictures."""
    return dataclasses.replace(config, normalisation="bins") if config.needs_statistics else config


Transform = Callable[[jax.Array, int], jax.Array]
"""Computes the first half of the discrete Fourier transform of real [..., W] float, padded to a length."""


def fourier_product(windows: jax.Array, length: int) -> jax.Array:
    """Computes what `jnp.fft.rfft` computes, as a product of matrices."""
    angles = 2 * np.pi / length * np.outer(np.arange(windows.shape[-1]), np.arange(length // 2 + 1))
    real, imaginary = (jnp.asarray(part, windows.dtype) for part in (np.cos(angles), -np.sin(angles)))
    product = functools.partial(jnp.matmul, windows, precision="highest")
    return jax.lax.complex(product(real), product(imaginary))


def log_spectrogram(
    waveforms: jax.Array, num_samples: jax.Array, config: FeatureConfig, transform: Transform = jnp.fft.rfft
) -> tuple[jax.Array, jax.Array]:
    """Computes log1p of the magnitude of the short-time Fourier transform.

    Frames are centred. Samples past both ends of a waveform count as 0, or are those of the reflected waveform, as
    `config.edges` says. With `num_mels` it computes the logarithm
    of the energy in each mel band instead. A frame depends on its own samples only, so padding does not change a row's
    valid frames: they are equal bit for bit without mel bands, and within rounding with them.

    Args:
        waveforms: [B, S] float, samples in [-1, 1]. Values at or past `num_samples` are ignored.
        num_samples: [B] int32, valid samples; 0 for an empty row.
        config: sample rate, window, stride and mel bands.
        transform: see `Transform`.

    Returns:
        spectrograms: [B, T, F] float of the waveforms' type, T = 1 + S // hop; zeros past `num_frames`.
        num_frames: [B] int32, valid frames.

    Source: librosa.stft(n_fft=320, hop_length=160, window="hamming", pad_mode="constant" or "reflect"); for mel bands
        librosa.filters.mel(htk=True, norm=None).
    """
    size, hop = config.window_length, config.hop_length
    _, max_samples = waveforms.shape
    max_frames = 1 + max_samples // hop
    # Zero the padding before the transform: the last valid frames reach past the end, where librosa has zeros.
    waveforms = jnp.where(mask_from_lengths(num_samples, max_samples), waveforms, 0)
    hops_in_window = -(-size // hop)
    left = size // 2
    right = (max_frames - 1 + hops_in_window) * hop - left - max_samples
    if config.edges == "reflected":
        padded = reflected(waveforms, num_samples, left, right)
    else:
        padded = jax.lax.pad(waveforms, jnp.zeros((), waveforms.dtype), ((0, 0, 0), (left, right, 0)))
    spectrograms = spectra(padded, config, transform)
    num_frames = count_frames(num_samples, hop)
    mask = mask_from_lengths(num_frames, max_frames)
    return jnp.where(mask[..., None], spectrograms, 0), num_frames


def reflected(waveforms: jax.Array, num_samples: jax.Array, left: int, right: int) -> jax.Array:
    """Continues each waveform at both ends with its reflection: [B, left + S + right], as `numpy.pad` does.

    Args:
        waveforms: [B, S] float.
        num_samples: [B] int32, valid samples.
        left: number of samples in front.
        right: number of samples behind the longest waveform; shorter ones have more.
    """
    period = jnp.maximum(2 * (num_samples - 1), 1)[:, None]
    places = jnp.arange(-left, waveforms.shape[1] + right)[None, :] % period
    places = jnp.minimum(places, period - places) if waveforms.shape[1] > 1 else jnp.zeros_like(places)
    return jnp.take_along_axis(waveforms, places, axis=1, mode="clip")


def spectra(samples: jax.Array, config: FeatureConfig, transform: Transform = jnp.fft.rfft) -> jax.Array:
    """Computes the log spectrum of each window that starts at a multiple of the stride.

    Args:
        samples: [B, P] float, where P is a multiple of the stride.
        config: see `log_spectrogram`.
        transform: see `Transform`.

    Returns:
        [B, T, F] float of the type of `samples`; T is P / stride, less the whole strides that a window covers beyond
        the first.
    """
    size, hop = config.window_length, config.hop_length
    hops_in_window = -(-size // hop)
    hops = samples.reshape(samples.shape[0], -1, hop)
    num_frames = hops.shape[1] - hops_in_window + 1
    # Overlapping frames are concatenated from shifted slices of whole hops. This needs no gather.
    frames = jnp.concatenate([hops[:, i : i + num_frames] for i in range(hops_in_window)], axis=-1)[..., :size]
    window = scipy.signal.get_window(config.window, size, fftbins=not config.symmetric_window)
    window = jnp.asarray(config.scale * window, samples.dtype)
    transforms = transform(frames * window[None, None, :], config.fft_length)
    if not config.num_mels:
        return jnp.log1p(jnp.abs(transforms))
    bands = jnp.asarray(mel_bands(config), samples.dtype)
    energies = jnp.einsum("btf,mf->btm", jnp.square(jnp.abs(transforms)), bands, precision="highest")
    return jnp.log(energies + FLOOR)


class Statistics(NamedTuple):
    """Statistics of the log spectrograms of a training set.

    Attributes:
        mean: [F] float, the mean of each bin.
        deviation: [] float, the standard deviation around these means, one for all bins.
    """

    mean: jax.Array
    deviation: jax.Array


class RunningSums(NamedTuple):
    """Sums over the frames of a stream so far, relative to the training set's mean.

    A sum is a pair of floats that are added: the second holds what rounding takes from the first. So the sums of hours
    are as exact as those of seconds.

    Attributes:
        num_frames: [B] int32.
        sums: [B, 2, F] float, of the differences from the mean.
        squares: [B, 2] float, of their squares, averaged over the bins.
    """

    num_frames: jax.Array
    sums: jax.Array
    squares: jax.Array

    @classmethod
    def zeros(cls, num_rows: int, num_bins: int, dtype: jax.typing.DTypeLike = jnp.float32) -> "RunningSums":
        """Makes the sums of streams that have not begun."""
        frames = jnp.zeros(num_rows, jnp.int32)
        return cls(frames, jnp.zeros((num_rows, 2, num_bins), dtype), jnp.zeros((num_rows, 2), dtype))


def normalise_running(
    spectrograms: jax.Array, mask: jax.Array, statistics: Statistics, before: RunningSums, config: FeatureConfig
) -> tuple[jax.Array, RunningSums]:
    """Normalises each frame by the mean of each bin and the deviation of all, over the frames up to it.

    The training set's statistics count as `prior_seconds` of frames before the first. Training and streaming share this
    function, so a stream in parts has the values of the whole.

    Args:
        spectrograms: [B, T, F] float.
        mask: [B, T] bool, True = valid.
        statistics: those of the training set.
        before: the sums of the frames before.
        config: window stride and `prior_seconds`.

    Returns:
        [B, T, F] float, zeros where `mask` is False, and the sums after these frames.
    """
    differences = jnp.where(mask[..., None], spectrograms - statistics.mean[None, None, :], 0)
    sums = jnp.cumsum(differences, axis=1)  # [B, T, F]
    squares = jnp.cumsum(jnp.square(differences).mean(axis=2), axis=1)  # [B, T]
    frames = before.num_frames[:, None] + jnp.cumsum(mask, axis=1)
    prior = config.prior_seconds / config.window_stride
    count = (frames + prior).astype(spectrograms.dtype)
    mean = (before.sums[:, :1] + (before.sums[:, 1:] + sums)) / count[..., None]
    square = before.squares[:, :1] + (before.squares[:, 1:] + squares)
    prior_variance = jnp.square(statistics.deviation)
    variance = (prior * prior_variance + square) / count - jnp.square(mean).mean(axis=2)
    variance = jnp.maximum(variance, LEAST_VARIANCE * prior_variance)
    outputs = jnp.where(mask[..., None], (differences - mean) * jax.lax.rsqrt(variance)[..., None], 0)
    after = RunningSums(frames[:, -1], _added(before.sums, sums[:, -1]), _added(before.squares, squares[:, -1]))
    return outputs, after


def _added(pair: jax.Array, addend: jax.Array) -> jax.Array:
    """Adds to a pair of floats without loss: the second takes what rounding the first leaves (Knuth's two-sum)."""
    large, addend = pair[:, 0], pair[:, 1] + addend
    total = large + addend
    part = total - large
    return jnp.stack([total, (large - (total - part)) + (addend - part)], axis=1)


def normalise_global(spectrograms: jax.Array, mask: jax.Array, statistics: Statistics) -> jax.Array:
    """Normalises by the statistics of the training set: [B, T, F] float, zeros where `mask` ([B, T]) is False."""
    normalised = (spectrograms - statistics.mean[None, None, :]) / statistics.deviation
    return jnp.where(mask[..., None], normalised, 0)


def normalise(
    spectrograms: jax.Array, num_frames: jax.Array, normalisation: Literal["utterance", "bins"] = "utterance"
) -> jax.Array:
    """Subtracts each utterance's mean and divides by its standard deviation (ddof 1), both over valid frames.

    Args:
        spectrograms: [B, T, F] float.
        num_frames: [B] int32, valid frames.
        normalisation: "utterance" subtracts one mean over all bins, "bins" subtracts the mean of each bin. Both divide
            by one standard deviation over all bins.

    Returns:
        [B, T, F] float, zeros past `num_frames` and in utterances whose values are all equal.

    Source: "bins" is cepstral mean normalisation (Atal 1974) in the log spectrum. A fixed linear filter adds a constant
        to each bin of the log magnitude, and nearly a constant to log1p in frames with speech.
    Differs: deepspeech.pytorch has "utterance" only. If all values are equal, it divides by 0 and gives NaN.
    """
    mask = mask_from_lengths(num_frames, spectrograms.shape[1])[..., None]
    axes, bins = ((1, 2), spectrograms.shape[2]) if normalisation == "utterance" else ((1,), 1)
    terms = (num_frames * bins)[:, None, None].astype(spectrograms.dtype)
    mean = jnp.where(mask, spectrograms, 0).sum(axes, keepdims=True) / jnp.maximum(terms, 1)
    count = (num_frames * spectrograms.shape[2])[:, None, None].astype(spectrograms.dtype)
    centred = jnp.where(mask, spectrograms - mean, 0)
    variance = jnp.square(centred).sum((1, 2), keepdims=True) / jnp.maximum(count - 1, 1)
    varies = variance != 0  # True for NaN, so that a waveform that is not finite shows in the result
    return jnp.where(varies, centred * jax.lax.rsqrt(jnp.where(varies, variance, 1)), 0)


def extract_features(
    waveforms: jax.Array,
    num_samples: jax.Array,
    config: FeatureConfig,
    statistics: Statistics | None = None,
    transform: Transform = jnp.fft.rfft,
) -> tuple[jax.Array, jax.Array]:
    """Computes the model's input: normalised log spectrograms.

    Arguments and results are those of `log_spectrogram`. With the normalisations "utterance" and "bins", each
    utterance's spectrogram has mean 0 (in every bin with "bins") and standard deviation 1, and a constant waveform
    (silence, or the offset of a dead microphone) gives zeros. "running" and "global" need the `statistics` of the
    training set.
    """
    spectrograms, num_frames = log_spectrogram(waveforms, num_samples, config, transform)
    if config.needs_statistics:
        if statistics is None:
            raise ValueError(f"statistics must be given with {config.normalisation} normalisation, got None.")
        mask = mask_from_lengths(num_frames, spectrograms.shape[1])
        if config.normalisation == "global":
            return normalise_global(spectrograms, mask, statistics), num_frames
        before = RunningSums.zeros(spectrograms.shape[0], config.num_bins, spectrograms.dtype)
        return normalise_running(spectrograms, mask, statistics, before, config)[0], num_frames
    valid = mask_from_lengths(num_samples, waveforms.shape[1])
    constant = jnp.where(valid, waveforms == waveforms[:, :1], True).all(1)
    spectrograms = jnp.where(constant[:, None, None], 0, spectrograms)
    assert config.normalisation in ("utterance", "bins")
    return normalise(spectrograms, num_frames, config.normalisation), num_frames

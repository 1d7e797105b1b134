"""Computes normalised log spectrograms from waveforms, for training, evaluation and transcription alike."""

from typing import Literal

import jax
import jax.numpy as jnp
import scipy.signal

from ds2_jax.config import FeatureConfig
from ds2_jax.config.frames import count_frames
from ds2_jax.config.mel_bands import mel_bands
from ds2_jax.model.masks import mask_from_lengths

FLOOR = 1e-5
"""Added to the energy of a mel band before its logarithm. It lies 30 dB above the rounding noise of 16-bit samples and
below the background noise of a room."""


def log_spectrogram(waveforms: jax.Array, num_samples: jax.Array, config: FeatureConfig) -> tuple[jax.Array, jax.Array]:
    """Computes log1p of the magnitude of the short-time Fourier transform.

    Frames are centred, and samples past both ends of a waveform count as 0. With `num_mels` it computes the logarithm
    of the energy in each mel band instead. A frame depends on its own samples only, so padding does not change a row's
    valid frames: they are equal bit for bit without mel bands, and within rounding with them.

    Args:
        waveforms: [B, S] float, samples in [-1, 1]. Values at or past `num_samples` are ignored.
        num_samples: [B] int32, valid samples; 0 for an empty row.
        config: sample rate, window, stride and mel bands.

    Returns:
        spectrograms: [B, T, F] float of the waveforms' type, T = 1 + S // hop; zeros past `num_frames`.
        num_frames: [B] int32, valid frames.

    Source: librosa.stft(n_fft=320, hop_length=160, window="hamming", pad_mode="constant"); for mel bands
        librosa.filters.mel(htk=True, norm=None).
    """
    size, hop = config.window_length, config.hop_length
    num_rows, max_samples = waveforms.shape
    max_frames = 1 + max_samples // hop
    # Zero the padding before the transform: the last valid frames reach past the end, where librosa has zeros.
    waveforms = jnp.where(mask_from_lengths(num_samples, max_samples), waveforms, 0)
    hops_in_window = -(-size // hop)
    left = size // 2
    right = (max_frames - 1 + hops_in_window) * hop - left - max_samples
    hops = jax.lax.pad(waveforms, jnp.zeros((), waveforms.dtype), ((0, 0, 0), (left, right, 0)))
    hops = hops.reshape(num_rows, -1, hop)
    # Overlapping frames are concatenated from shifted slices of whole hops. This needs no gather.
    frames = jnp.concatenate([hops[:, i : i + max_frames] for i in range(hops_in_window)], axis=-1)[..., :size]
    window = jnp.asarray(scipy.signal.get_window(config.window, size, fftbins=True), waveforms.dtype)
    spectra = jnp.fft.rfft(frames * window[None, None, :], config.fft_length)
    if config.num_mels:
        bands = jnp.asarray(mel_bands(config), waveforms.dtype)
        energies = jnp.einsum("btf,mf->btm", jnp.square(jnp.abs(spectra)), bands, precision="highest")
        spectrograms = jnp.log(energies + FLOOR)  # [B, T, F]
    else:
        spectrograms = jnp.log1p(jnp.abs(spectra))
    num_frames = count_frames(num_samples, hop)
    mask = mask_from_lengths(num_frames, max_frames)
    return jnp.where(mask[..., None], spectrograms, 0), num_frames


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
    waveforms: jax.Array, num_samples: jax.Array, config: FeatureConfig
) -> tuple[jax.Array, jax.Array]:
    """Computes the model's input: normalised log spectrograms.

    A constant waveform (silence, or the offset of a dead microphone) contains no speech and gives zeros.

    Arguments and results are those of `log_spectrogram`. Each utterance's spectrogram has mean 0 (in every bin, if the
    configuration says so) and standard deviation 1.
    """
    spectrograms, num_frames = log_spectrogram(waveforms, num_samples, config)
    valid = mask_from_lengths(num_samples, waveforms.shape[1])
    constant = jnp.where(valid, waveforms == waveforms[:, :1], True).all(1)
    spectrograms = jnp.where(constant[:, None, None], 0, spectrograms)
    return normalise(spectrograms, num_frames, config.normalisation), num_frames

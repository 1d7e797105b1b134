"""Computes the spectrograms of an utterance before and after its changes, and what SpecAugment did."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.config import Config, FeatureConfig
from ds2_jax.model.features import extract_features, without_statistics
from ds2_jax.model.spec_augment import row_keys, spec_augment


class Look(NamedTuple):
    """The spectrograms of an utterance, and the masks and the warp of SpecAugment.

    Attributes:
        before: [T, F] float32, normalised spectrogram of the recording.
        after: [T', F] float32, normalised spectrogram of the changed waveform, warped and masked.
        in_time: [T'] bool, masked frames.
        in_frequency: [F] bool, masked bins.
        origin: the frame that the time warp moved.
        target: the frame to which it was moved; equal to `origin` without a warp.
    """

    before: np.ndarray
    after: np.ndarray
    in_time: np.ndarray
    in_frequency: np.ndarray
    origin: int
    target: int


def looker(config: Config) -> Callable[[np.ndarray, np.ndarray, int, int], Look]:
    """Makes a function that computes a `Look` from a recording [S], its changed waveform [S'], the epoch and the index.

    Epoch and index are counted from 0. With the epoch and index of training, the draws are also those of training.
    """
    sample_rate = config.features.sample_rate
    compute = jax.jit(functools.partial(_compute, config=config))

    def look(before: np.ndarray, after: np.ndarray, epoch: int, index: int) -> Look:
        num_samples = np.array([len(before), len(after)], np.int32)
        seconds = 1
        while seconds * sample_rate < num_samples.max():
            seconds *= 2  # so that few shapes are compiled
        waveforms = np.zeros((2, seconds * sample_rate), np.float32)
        for row, waveform in zip(waveforms, (before, after), strict=True):
            row[: len(waveform)] = waveform
        arrays = compute(waveforms, num_samples, np.int32(epoch), np.int32(index))
        spectrograms, after, masked, places, num_frames = map(np.asarray, arrays)
        length = num_frames[1]
        hidden = masked[:length]
        in_time = np.asarray(hidden.all(1))
        moves = np.abs(places[:length] - np.arange(length))
        target = int(moves.argmax()) if moves.any() else 0
        return Look(
            before=spectrograms[0, : num_frames[0]],
            after=after[:length],
            in_time=in_time,
            in_frequency=np.asarray(hidden[~in_time].all(0) & ~in_time.all()),
            origin=round(float(places[target])),
            target=target,
        )

    return look


def _compute(
    waveforms: jax.Array, num_samples: jax.Array, epoch: jax.Array, index: jax.Array, config: Config
) -> tuple[jax.Array, ...]:
    """Computes the spectrograms of two waveforms [2, S], and augments the second.

    Returns:
        Both spectrograms; the augmented second one; where it is masked; the position from which each of its frames is
        read; and the numbers of frames.
    """
    spectrograms, num_frames = extract_features(waveforms, num_samples, without_statistics(config.features))
    keys = row_keys(config.seed, epoch, index[None])
    warp = replace(config.augment, num_frequency_masks=0, num_time_masks=0)
    masks = replace(config.augment, time_warp_frames=0)
    changed, length = spectrograms[1:], num_frames[1:]
    places = jnp.arange(changed.shape[1], dtype=changed.dtype)[None, :, None]  # warped as an extra bin
    warped = spec_augment(jnp.concatenate([changed, places], axis=2), length, keys, warp)[0]
    masked = spec_augment(jnp.ones_like(changed), length, keys, masks)[0] == 0
    return spectrograms, jnp.where(masked, 0, warped[:, :-1]), masked, warped[:, -1], num_frames


def describe(look: Look, features: FeatureConfig) -> Iterator[str]:
    """Yields what SpecAugment did, in seconds and in mel bands or kHz; nothing if it changed nothing."""
    if look.origin != look.target:
        yield "warp {:.2f} s to {:.2f} s".format(*(frame * features.window_stride for frame in look[-2:]))
    parts = []
    if look.in_time.any():
        parts.append(f"{look.in_time.sum() * features.window_stride:.2f} s")
    if look.in_frequency.any():
        share = look.in_frequency.mean()
        kilohertz = f"{share * features.sample_rate / 2000:.1f} kHz"
        parts.append(
            f"{share * features.num_mels:.0f} of {features.num_mels} mel bands" if features.num_mels else kilohertz
        )
    if parts:
        yield f"masked {' and '.join(parts)}"

"""An utterance as the step sees it: its spectrogram before and after, and what SpecAugment did."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.augment import row_keys, spec_augment
from ds2_jax.config import Config, FeatureConfig
from ds2_jax.features import extract_features


class Look(NamedTuple):
    """What the device makes of an utterance.

    Attributes:
        before: [T, F] float32, normalised spectrogram of the recording.
        after: [T', F] float32, of the changed waveform, warped and masked.
        in_time: [T'] bool, masked frames.
        in_frequency: [F] bool, masked bins.
        origin: frame that the time warp moved.
        target: where it moved it; `origin` where there was no warp.
    """

    before: np.ndarray
    after: np.ndarray
    in_time: np.ndarray
    in_frequency: np.ndarray
    origin: int
    target: int


def looker(config: Config) -> Callable[[np.ndarray, np.ndarray, int, int], Look]:
    """The function from a recording [S], its changed waveform [S'], the epoch and the utterance's place to a `Look`.

    Epoch and place are counted from 0; with those of training, so is what is drawn.
    """
    sample_rate = config.features.sample_rate
    compute = jax.jit(functools.partial(_compute, config=config))

    def look(before: np.ndarray, after: np.ndarray, epoch: int, index: int) -> Look:
        num_samples = np.array([len(before), len(after)], np.int32)
        seconds = 1
        while seconds * sample_rate < num_samples.max():
            seconds *= 2  # few shapes to compile
        waveforms = np.zeros((2, seconds * sample_rate), np.float32)
        for row, waveform in zip(waveforms, (before, after), strict=True):
            row[: len(waveform)] = waveform
        arrays = compute(waveforms, num_samples, np.int32(epoch), np.int32(index))
        spectrograms, augmented, masked, places, num_frames = map(np.asarray, arrays)
        length = num_frames[1]
        hidden = masked[1, :length]
        in_time = np.asarray(hidden.all(1))
        moves = np.abs(places[1, :length, 0] - np.arange(length))
        target = int(moves.argmax()) if moves.any() else 0
        return Look(
            before=spectrograms[0, : num_frames[0]],
            after=augmented[1, :length],
            in_time=in_time,
            in_frequency=np.asarray(hidden[~in_time].all(0) & ~in_time.all()),
            origin=round(float(places[1, target, 0])),
            target=target,
        )

    return look


def _compute(
    waveforms: jax.Array, num_samples: jax.Array, epoch: jax.Array, index: jax.Array, config: Config
) -> tuple[jax.Array, ...]:
    """Spectrograms, the same augmented, what is masked, and where the warp reads each frame: row 1 of [2, T, ...]."""
    spectrograms, num_frames = extract_features(waveforms, num_samples, config.features)
    keys = row_keys(config.seed, epoch, jnp.stack([index, index]))
    warp_only = replace(config.augment, num_frequency_masks=0, num_time_masks=0)
    frames = jnp.arange(spectrograms.shape[1], dtype=jnp.float32)
    places = jnp.broadcast_to(frames[None, :, None], (2, len(frames), 1))
    return (
        spectrograms,
        spec_augment(spectrograms, num_frames, keys, config.augment),
        spec_augment(jnp.ones_like(spectrograms), num_frames, keys, config.augment) == 0,
        spec_augment(places, num_frames, keys, warp_only),
        num_frames,
    )


def describe(look: Look, features: FeatureConfig) -> Iterator[str]:
    """What SpecAugment did, in seconds and kHz; nothing where it did nothing."""
    if look.origin != look.target:
        yield "warp {:.2f} s to {:.2f} s".format(*(frame * features.window_stride for frame in look[-2:]))
    parts = []
    if look.in_time.any():
        parts.append(f"{look.in_time.sum() * features.window_stride:.2f} s")
    if look.in_frequency.any():
        parts.append(f"{look.in_frequency.mean() * features.sample_rate / 2000:.1f} kHz")
    if parts:
        yield f"masked {' and '.join(parts)}"

"""SpecAugment on the device, and the random keys that every draw of a training step comes from."""

import jax
import jax.numpy as jnp

from ds2_jax.config import AugmentConfig


def row_keys(seed: int, epoch: jax.Array, indices: jax.Array) -> jax.Array:
    """One random key an utterance: a function of (seed, epoch, utterance), never of device, step or row.

    Args:
        seed: of the run.
        epoch: [] int32.
        indices: [B] int32, position of each utterance in its split; -1 for an empty row.

    Returns:
        [B] typed random keys.
    """
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def spec_augment(spectrograms: jax.Array, num_frames: jax.Array, keys: jax.Array, config: AugmentConfig) -> jax.Array:
    """Sets random bands of frequencies and runs of frames to 0, the mean of a normalised spectrogram.

    Args:
        spectrograms: [B, T, F] float, normalised.
        num_frames: [B] int32, valid frames; time masks begin and end inside them.
        keys: [B] random keys.
        config: number and largest width of the masks.

    Returns:
        [B, T, F] float.

    Source: Park et al. 2019, without time warping; widths and starts uniform.
    Differs: deepspeech.pytorch draws one mask of each kind, warps time with a spectrogram value as coordinate, and
        augments its validation set too.
    """
    max_frames, num_bins = spectrograms.shape[1:]
    bins = jnp.full_like(num_frames, num_bins)
    if config.num_frequency_masks and config.frequency_mask_width:
        hit = _spans(keys, 1, bins, config.num_frequency_masks, config.frequency_mask_width, num_bins)
        spectrograms = jnp.where(hit[:, None, :], 0, spectrograms)
    if config.num_time_masks and config.time_mask_width:
        hit = _spans(keys, 2, num_frames, config.num_time_masks, config.time_mask_width, max_frames)
        spectrograms = jnp.where(hit[:, :, None], 0, spectrograms)
    return spectrograms


def _spans(keys: jax.Array, purpose: int, limits: jax.Array, count: int, width: int, size: int) -> jax.Array:
    """[B, size] bool: the union of `count` spans of 0 to `width` positions inside [0, limits[b]) of each row."""

    def row(key: jax.Array, limit: jax.Array) -> jax.Array:
        width_key, start_key = jax.random.split(jax.random.fold_in(key, purpose))
        widths = jnp.minimum(jax.random.randint(width_key, (count,), 0, width + 1), limit)
        starts = jnp.floor(jax.random.uniform(start_key, (count,)) * (limit - widths + 1)).astype(jnp.int32)
        position = jnp.arange(size)[None, :]
        return ((position >= starts[:, None]) & (position < (starts + widths)[:, None])).any(0)

    return jax.vmap(row)(keys, limits)

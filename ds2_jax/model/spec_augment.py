"""SpecAugment on the device, and the random keys that every draw of a training step comes from."""

import jax
import jax.numpy as jnp

from ds2_jax.config import AugmentConfig

FREQUENCY_MASKS, TIME_MASKS, TIME_WARP, CHANCES = 1, 2, 3, 4
"""What an utterance's key is used for. Dropout takes the numbers from 16 on."""


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
    """Warps time, then sets random bands of frequencies and runs of frames to 0, the mean of a normalised spectrogram.

    Args:
        spectrograms: [B, T, F] float, normalised.
        num_frames: [B] int32, valid frames; the warp maps them onto themselves, time masks begin and end inside them.
        keys: [B] random keys.
        config: what is done, how often, and its largest extent.

    Returns:
        [B, T, F] float.

    Source: Park et al. 2019, SpecAugment; Park et al. 2020, SpecAugment on Large Scale Datasets (time masks whose
        number and width follow the utterance's length). Widths and starts are uniform.
    Differs: deepspeech.pytorch draws one mask of each kind, warps time with a spectrogram value as coordinate, and
        augments its validation set too.
    """
    max_frames, num_bins = spectrograms.shape[1:]
    chances = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, CHANCES), (3,)))(keys)  # [B, 3]
    if config.time_warp_frames and config.time_warp_probability:
        centres, shifts = _warps(keys, num_frames, config.time_warp_frames)
        shifts = jnp.where(chances[:, 0] < config.time_warp_probability, shifts, 0)
        spectrograms = time_warp(spectrograms, num_frames, centres, shifts)
    if config.num_frequency_masks and config.frequency_mask_width and config.frequency_mask_probability:
        bins = jnp.full_like(num_frames, num_bins)
        counts = jnp.full_like(num_frames, config.num_frequency_masks)
        counts = jnp.where(chances[:, 1] < config.frequency_mask_probability, counts, 0)
        widths = jnp.full_like(num_frames, config.frequency_mask_width)
        hit = _spans(keys, FREQUENCY_MASKS, bins, counts, widths, config.num_frequency_masks, num_bins)
        spectrograms = jnp.where(hit[:, None, :], 0, spectrograms)
    if config.num_time_masks and config.time_mask_width and config.time_mask_probability:
        counts, widths = _time_masks(num_frames, config)
        counts = jnp.where(chances[:, 2] < config.time_mask_probability, counts, 0)
        hit = _spans(keys, TIME_MASKS, num_frames, counts, widths, config.num_time_masks, max_frames)
        spectrograms = jnp.where(hit[:, :, None], 0, spectrograms)
    return spectrograms


def time_warp(spectrograms: jax.Array, num_frames: jax.Array, centres: jax.Array, shifts: jax.Array) -> jax.Array:
    """Moves the frame `centre` to `centre + shift` and stretches or squeezes what lies before and behind it.

    The first and the last valid frame stay where they are; between frames it is interpolated linearly. A shift of 0
    changes nothing, and padding stays as it is.

    Args:
        spectrograms: [B, T, F] float.
        num_frames: [B] int32, valid frames.
        centres: [B] int32.
        shifts: [B] int32; 0, or such that centre and centre + shift lie between the first and the last valid frame.

    Returns:
        [B, T, F] float, of the same valid frames.
    """
    frames = jnp.arange(spectrograms.shape[1])[None, :]  # [1, T]
    last, targets = (num_frames - 1)[:, None], (centres + shifts)[:, None]  # [B, 1]
    # How far back each frame is read, over the shift: 1 at the target, 0 at both ends and past the last frame.
    tent = jnp.minimum(frames / jnp.maximum(targets, 1), (last - frames) / jnp.maximum(last - targets, 1))
    moves = -shifts[:, None] * jnp.maximum(tent, 0)  # [B, T]
    whole = jnp.floor(moves)
    before = frames + whole.astype(jnp.int32)
    behind = jnp.where(moves > whole, before + 1, before)  # the last valid frame has none behind it
    fractions = (moves - whole).astype(spectrograms.dtype)[..., None]
    values = _frames_at(spectrograms, before)
    return values + fractions * (_frames_at(spectrograms, behind) - values)


def _frames_at(spectrograms: jax.Array, indices: jax.Array) -> jax.Array:
    """[B, T, F]: the frames at `indices` [B, T] of each row."""
    return jax.vmap(lambda row, places: jnp.take(row, places, axis=0, mode="clip"))(spectrograms, indices)


def _warps(keys: jax.Array, num_frames: jax.Array, largest: int) -> tuple[jax.Array, jax.Array]:
    """[B] int32 each: the frames to move, and by how many; neither side becomes shorter than half its length."""

    def row(key: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        centre_key, shift_key = jax.random.split(jax.random.fold_in(key, TIME_WARP))
        centre = jax.random.randint(centre_key, (), 1, jnp.maximum(length - 1, 2))
        bound = jnp.clip(jnp.minimum(centre, length - 1 - centre) // 2, 0, largest)
        return centre, jax.random.randint(shift_key, (), -bound, bound + 1)

    return jax.vmap(row)(keys, num_frames)


def _time_masks(num_frames: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array]:
    """[B] int32 each: how many time masks an utterance has, and the most frames of one."""
    counts, widths = (jnp.full_like(num_frames, n) for n in (config.num_time_masks, config.time_mask_width))
    if config.frames_per_time_mask:
        counts = jnp.minimum(counts, num_frames // config.frames_per_time_mask)
    if config.time_mask_share < 1:
        widths = jnp.minimum(widths, jnp.floor(config.time_mask_share * num_frames).astype(jnp.int32))
    return counts, widths


def _spans(
    keys: jax.Array, purpose: int, limits: jax.Array, counts: jax.Array, widths: jax.Array, most: int, size: int
) -> jax.Array:
    """[B, size] bool: the union of `counts[b]` of `most` spans of 0 to `widths[b]` positions inside [0, limits[b])."""

    def row(key: jax.Array, limit: jax.Array, count: jax.Array, largest: jax.Array) -> jax.Array:
        width_key, start_key = jax.random.split(jax.random.fold_in(key, purpose))
        widths = jnp.minimum(jax.random.randint(width_key, (most,), 0, largest + 1), limit)
        starts = jnp.floor(jax.random.uniform(start_key, (most,)) * (limit - widths + 1)).astype(jnp.int32)
        widths = jnp.where(jnp.arange(most) < count, widths, 0)
        position = jnp.arange(size)[None, :]
        return ((position >= starts[:, None]) & (position < (starts + widths)[:, None])).any(0)

    return jax.vmap(row)(keys, limits, counts, widths)

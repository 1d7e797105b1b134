"""SpecAugment on the device, and the random keys from which a training step makes every random draw."""

import jax
import jax.numpy as jnp

from ds2_jax.config import AugmentConfig

FREQUENCY_MASKS, TIME_MASKS, TIME_WARP, CHANCES = 1, 2, 3, 4
"""Numbers folded into an utterance's key, one for each use. Dropout uses the numbers from 16 on."""


def row_keys(seed: int | jax.Array, epoch: jax.Array, indices: jax.Array) -> jax.Array:
    """Makes one random key for each utterance.

    The key depends on (seed, epoch, utterance) only, never on the device, the step or the row.

    Args:
        seed: the run's seed.
        epoch: [] int32.
        indices: [B] int32, each utterance's position in its split; -1 for an empty row.

    Returns:
        [B] typed random keys.
    """
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def spec_augment(spectrograms: jax.Array, num_frames: jax.Array, keys: jax.Array, config: AugmentConfig) -> jax.Array:
    """Warps time, then sets random frequency bands and runs of frames to 0, the mean of a normalised spectrogram.

    Args:
        spectrograms: [B, T, F] float, normalised.
        num_frames: [B] int32, valid frames. The time warp moves frames inside this range only, and time masks lie
            inside it.
        keys: [B] random keys.
        config: the probability, number and largest size of warps and masks.

    Returns:
        [B, T, F] float.

    Source: Park et al. 2019, SpecAugment; Park et al. 2020, SpecAugment on Large Scale Datasets, where the number and
        width of time masks depend on the utterance's length. Widths and starts are uniform.
    Differs: deepspeech.pytorch draws one mask of each kind, uses a spectrogram value as the coordinate of its time
        warp, and augments its validation set too.
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
    """Moves the frame `centre` to `centre + shift`, and stretches or squeezes the frames before and after it.

    The first and last valid frames stay in place. Values between frames are interpolated linearly. A shift of 0 changes
    nothing, and padding never changes.

    Args:
        spectrograms: [B, T, F] float.
        num_frames: [B] int32, valid frames.
        centres: [B] int32.
        shifts: [B] int32. Each is 0, or both centre and centre + shift lie between the first and last valid frames.

    Returns:
        [B, T, F] float, with the same number of valid frames.
    """
    frames = jnp.arange(spectrograms.shape[1])[None, :]  # [1, T]
    last, targets = (num_frames - 1)[:, None], (centres + shifts)[:, None]  # [B, 1]
    # The share of the shift by which each frame moves: 1 at the target, 0 at both ends and past the last frame.
    tent = jnp.minimum(frames / jnp.maximum(targets, 1), (last - frames) / jnp.maximum(last - targets, 1))
    moves = -shifts[:, None] * jnp.maximum(tent, 0)  # [B, T]
    whole = jnp.floor(moves)
    before = frames + whole.astype(jnp.int32)
    behind = jnp.where(moves > whole, before + 1, before)  # no frame follows the last valid one
    fractions = (moves - whole).astype(spectrograms.dtype)[..., None]
    values = _frames_at(spectrograms, before)
    return values + fractions * (_frames_at(spectrograms, behind) - values)


def _frames_at(spectrograms: jax.Array, indices: jax.Array) -> jax.Array:
    """Takes the frames at `indices` [B, T] of each row -> [B, T, F]."""
    return jax.vmap(lambda row, places: jnp.take(row, places, axis=0, mode="clip"))(spectrograms, indices)


def _warps(keys: jax.Array, num_frames: jax.Array, largest: int) -> tuple[jax.Array, jax.Array]:
    """Draws the frame to move and its shift, [B] int32 each.

    The part before the frame and the part after it each keep at least half their length.
    """

    def row(key: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        centre_key, shift_key = jax.random.split(jax.random.fold_in(key, TIME_WARP))
        centre = jax.random.randint(centre_key, (), 1, jnp.maximum(length - 1, 2))
        bound = jnp.clip(jnp.minimum(centre, length - 1 - centre) // 2, 0, largest)
        return centre, jax.random.randint(shift_key, (), -bound, bound + 1)

    return jax.vmap(row)(keys, num_frames)


def _time_masks(num_frames: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array]:
    """Computes each utterance's number of time masks and their largest width in frames, [B] int32 each."""
    counts, widths = (jnp.full_like(num_frames, n) for n in (config.num_time_masks, config.time_mask_width))
    if config.frames_per_time_mask:
        counts = jnp.minimum(counts, num_frames // config.frames_per_time_mask)
    if config.time_mask_share < 1:
        widths = jnp.minimum(widths, jnp.floor(config.time_mask_share * num_frames).astype(jnp.int32))
    return counts, widths


def _spans(
    keys: jax.Array, purpose: int, limits: jax.Array, counts: jax.Array, widths: jax.Array, most: int, size: int
) -> jax.Array:
    """Draws `most` random spans for each row and marks the positions inside the first `counts[b]` of them.

    A span has 0 to `widths[b]` positions and lies inside [0, limits[b]). Returns [B, size] bool.
    """

    def row(key: jax.Array, limit: jax.Array, count: jax.Array, largest: jax.Array) -> jax.Array:
        width_key, start_key = jax.random.split(jax.random.fold_in(key, purpose))
        widths = jnp.minimum(jax.random.randint(width_key, (most,), 0, largest + 1), limit)
        starts = jnp.floor(jax.random.uniform(start_key, (most,)) * (limit - widths + 1)).astype(jnp.int32)
        widths = jnp.where(jnp.arange(most) < count, widths, 0)
        position = jnp.arange(size)[None, :]
        return ((position >= starts[:, None]) & (position < (starts + widths)[:, None])).any(0)

    return jax.vmap(row)(keys, limits, counts, widths)

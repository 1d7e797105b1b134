"""Masks computed from lengths: they mark the valid positions of padded arrays and the rows that CTC can align."""

import jax
import jax.numpy as jnp


def mask_from_lengths(lengths: jax.Array, size: int) -> jax.Array:
    """Marks the valid positions.

    Args:
        lengths: [B] int32, valid positions of each row.
        size: length of the masked axis.

    Returns:
        [B, size] bool, True = valid.
    """
    return jnp.arange(size)[None, :] < lengths[:, None]


def paddings_from_lengths(lengths: jax.Array, size: int) -> jax.Array:
    """Marks the padding, in the form that Optax takes: [B, size] float32, 1.0 = padding. See `mask_from_lengths`."""
    return 1.0 - mask_from_lengths(lengths, size).astype(jnp.float32)


def is_alignable(output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    """Marks the rows that CTC can align: they have at least one frame, and at least `ctc_min_frames`.

    Args:
        output_lengths: [B] int32, valid output frames.
        labels: [B, N] int32, right-padded.
        num_labels: [B] int32, valid labels.

    Returns:
        [B] bool; False for an empty row.
    """
    inside = jnp.arange(1, labels.shape[1])[None, :] < num_labels[:, None]
    repeats = ((labels[:, 1:] == labels[:, :-1]) & inside).sum(1)
    return (output_lengths > 0) & (num_labels + repeats <= output_lengths)

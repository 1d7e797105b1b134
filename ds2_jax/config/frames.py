"""All length arithmetic and masks. The counting functions take Python integers, NumPy and JAX arrays alike."""

import itertools
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Count = TypeVar("Count", int, np.ndarray, jax.Array)


def num_frames(num_samples: Count, hop_length: int) -> Count:
    """Spectrogram frames of a centred transform: 1 + num_samples // hop_length, and 0 for an empty row.

    Args:
        num_samples: [...] int, valid samples.
        hop_length: samples between frames.
    """
    return (num_samples // hop_length + 1) * (num_samples > 0)


def conv_output_lengths(input_lengths: Count, time_reduction: int = 2) -> Count:
    """Counts the valid frames left after the two convolutions.

    An odd kernel padded by half its length on both sides leaves ceil(n / stride) frames, whatever its size.

    Args:
        input_lengths: [...] int, valid spectrogram frames (10 ms each).
        time_reduction: product of the convolutions' strides over time.

    Returns:
        [...] int, valid output frames (20 ms each with the default reduction); 0 stays 0.

    Source: Deep Speech 2 front end; deepspeech.pytorch `get_seq_lens` (time stride 2, then 1).
    """
    return -(-input_lengths // time_reduction)


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
    """The inverse of `mask_from_lengths` as Optax asks for it: [B, size] float32, 1.0 = padding."""
    return 1.0 - mask_from_lengths(lengths, size).astype(jnp.float32)


def ctc_min_frames(labels: Sequence[int]) -> int:
    """Fewest output frames that can carry `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def ctc_min_samples(min_frames: Count, hop_length: int, time_reduction: int) -> Count:
    """Fewest samples that give `min_frames` output frames ([...] int, at least 1); of no frame they are 1 too."""
    return (min_frames - 1) * time_reduction * hop_length


def alignable(output_lengths: jax.Array, labels: jax.Array, num_labels: jax.Array) -> jax.Array:
    """Which rows CTC can align: some frames, and at least `ctc_min_frames` of them.

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

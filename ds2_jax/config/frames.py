"""Length arithmetic in plain Python and NumPy, so that importing this module does not load JAX.

Functions with arguments of type `Count` accept Python integers, NumPy arrays and JAX arrays.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import jax

Count = TypeVar("Count", int, np.ndarray, "jax.Array")


def count_frames(num_samples: Count, hop_length: int) -> Count:
    """Counts the spectrogram frames of a centred transform: 1 + num_samples // hop_length, but 0 for an empty row.

    Args:
        num_samples: [...] int, valid samples.
        hop_length: number of samples between frames.
    """
    return (num_samples // hop_length + 1) * (num_samples > 0)


def conv_output_lengths(input_lengths: Count, time_reduction: int = 2) -> Count:
    """Counts the valid frames left after the two convolutions.

    An odd kernel, with padding of half its length (rounded down) on each side, leaves ceil(n / stride) frames, whatever
    its size.

    Args:
        input_lengths: [...] int, valid spectrogram frames (10 ms each).
        time_reduction: product of the convolutions' strides over time.

    Returns:
        [...] int, valid output frames (20 ms each with the default reduction); 0 stays 0.

    Source: Deep Speech 2 front end; deepspeech.pytorch `get_seq_lens` (time stride 2, then 1).
    """
    return -(-input_lengths // time_reduction)


def ctc_min_frames(labels: Sequence[int]) -> int:
    """Counts the fewest output frames that can hold `labels`: one for each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def ctc_min_samples(min_frames: Count, hop_length: int, time_reduction: int) -> Count:
    """Counts the fewest samples that give `min_frames` output frames. `min_frames` ([...] int) must be at least 1."""
    return (min_frames - 1) * time_reduction * hop_length

"""Greedy CTC decoding: the best label of every frame, repeats collapsed, blanks dropped."""

import numpy as np

from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.text.alphabet import Alphabet


def greedy_decode(log_probs: np.ndarray) -> list[LabelSpan]:
    """Takes the best label of every frame, collapses repeats and drops blanks.

    Args:
        log_probs: [T', V] float32, or logits, of one utterance, no padding.

    Returns:
        Its labels in order, never blank, on the frames that carry them. This path is the most probable of all, and so
        also the best alignment of its own labels.
    """
    labels = log_probs.argmax(-1)
    starts = np.flatnonzero(np.diff(labels, prepend=-1))  # frames whose label differs from the one before
    ends = np.append(starts, len(labels))[1:] - 1
    runs = zip(labels[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
    return [LabelSpan(*run) for run in runs if run[0] != Alphabet.blank_index]

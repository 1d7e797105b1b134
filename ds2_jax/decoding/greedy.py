"""Greedy CTC decoding: selects the most probable label of each frame, merges repeats and removes blanks."""

import numpy as np

from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.text.alphabet import Alphabet


def greedy_decode(log_probs: np.ndarray) -> list[LabelSpan]:
    """Selects the most probable label of each frame, merges repeats and removes blanks.

    Args:
        log_probs: [T', V] float32, log-probabilities or logits of one utterance without padding.

    Returns:
        The labels in order, without blanks, each with its frames. This is the most probable path, and so also the best
        alignment of its own labels.
    """
    labels = log_probs.argmax(-1)
    starts = np.flatnonzero(np.diff(labels, prepend=-1))  # frames whose label differs from the previous frame's
    ends = np.append(starts, len(labels))[1:] - 1
    runs = zip(labels[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
    return [LabelSpan(*run) for run in runs if run[0] != Alphabet.blank_index]

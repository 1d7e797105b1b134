"""Forced alignment: the frames that carry each label of a text that is known."""

from collections.abc import Sequence

import numpy as np

from ds2_jax.config.frames import ctc_min_frames
from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.system.errors import InputError
from ds2_jax.system.numba_cache import kernel
from ds2_jax.text.alphabet import Alphabet

BLOCK_FRAMES = 4096
"""Frames whose choices are kept at once. Scores are kept at the start of every block, choices only of the states that
lead to the one where the block ends: 16 N T' / 4096 + 2 * 4096² bytes, 70 MB for an hour of 20 ms frames and 54,000
labels, where all choices would be 19 GB."""


def align(log_probs: np.ndarray, labels: Sequence[int]) -> list[LabelSpan]:
    """Finds the most probable path of an utterance among those that collapse to `labels` (Viterbi).

    Args:
        log_probs: [T', V] float32, natural logarithms, no padding; -inf is a label that cannot be.
        labels: [N], never blank.

    Returns:
        The labels in order, on the frames that carry them. Of paths of equal probability the one that is further on
        in the text where, seen from the end, they first differ; sums are in float64. For greedy decoding's labels
        that is greedy decoding's path, ties apart.

    Raises:
        InputError: log_probs hold NaN or infinity, a label is none of them, or the labels need more frames than there
            are, or have probability 0 in them.

    Source: Graves et al. 2006, "Connectionist temporal classification", section 4.1, with maxima for sums.
    """
    num_frames, num_labels = log_probs.shape
    if not (log_probs < np.inf).all():
        raise InputError(
            "log_probs must hold numbers below infinity, got NaN or infinity. Use weights from before the training "
            "diverged."
        )
    if not all(0 < label < num_labels for label in labels):
        raise InputError(f"labels must be 1 to {num_labels - 1}, got {min(labels)} to {max(labels)}. Leave blanks out.")
    needed = ctc_min_frames(labels)
    if num_frames < needed:
        raise InputError(
            f"A text of {len(labels)} labels must have at least {needed} output frames, got {num_frames}. "
            "Give the text of this recording, or the whole recording."
        )
    if not labels:
        return []
    path = _best_path(np.ascontiguousarray(log_probs), np.asarray(labels, np.int64))
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    lasts = np.append(starts, num_frames)[1:] - 1
    runs = zip(path[starts].tolist(), starts.tolist(), lasts.tolist(), strict=True)
    return [LabelSpan(int(labels[state // 2]), start, last) for state, start, last in runs if state % 2]


def _best_path(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[T'] int64, of every frame its state: 2n is the blank before label n, 2n + 1 label n, 2N the last blank."""
    num_frames, num_states = len(log_probs), 2 * len(labels) + 1
    label_of = np.full(num_states, Alphabet.blank_index, np.int64)
    label_of[1::2] = labels
    skips = np.zeros(num_states, np.bool_)  # whether a path may come from two states before
    skips[3::2] = labels[1:] != labels[:-1]
    scores = np.full(num_states, -np.inf)  # of the best path to each state; before the first frame all start at blank
    scores[0] = 0.0
    blocks = [slice(start, start + BLOCK_FRAMES) for start in range(0, num_frames, BLOCK_FRAMES)]
    kept = []
    for block in blocks:
        kept.append(scores.copy())
        _advance(scores, log_probs[block], label_of, skips, np.empty((0, 0), np.uint8))
    state = num_states - 1 if scores[-1] >= scores[-2] else num_states - 2
    if scores[state] == -np.inf:
        raise InputError(
            f"A text of {len(labels)} labels must be possible in its recording, got probability 0: it cannot be "
            "aligned. Give the text of this recording."
        )
    path = np.empty(num_frames, np.int64)
    for block, before in zip(reversed(blocks), reversed(kept), strict=True):
        frames = log_probs[block]
        lowest = max(0, state - 2 * len(frames))  # a frame climbs two states at most, so none below leads to `state`
        reach = slice(lowest, state + 1)
        choices = np.empty((len(frames), state + 1 - lowest), np.uint8)
        _advance(before[reach].copy(), frames, label_of[reach], skips[reach], choices)
        state = lowest + _trace(choices, state - lowest, path[block])
        path[block] += lowest
    return path


@kernel()
def _advance(
    scores: np.ndarray, log_probs: np.ndarray, label_of: np.ndarray, skips: np.ndarray, choices: np.ndarray
) -> None:
    """Carries `scores` [S] over frames, in place; notes how many states were climbed in `choices` [T', S] or [0, 0]."""
    keep = len(choices) > 0
    for frame in range(len(log_probs)):
        row = log_probs[frame]
        for state in range(len(scores) - 1, -1, -1):  # downwards: those below still hold the frame before
            best, climbed = scores[state], 0
            if state >= 1 and scores[state - 1] > best:
                best, climbed = scores[state - 1], 1
            if skips[state] and state >= 2 and scores[state - 2] > best:
                best, climbed = scores[state - 2], 2
            scores[state] = best + row[label_of[state]]
            if keep:
                choices[frame, state] = climbed


@kernel()
def _trace(choices: np.ndarray, state: int, path: np.ndarray) -> int:
    """Follows the choices back from `state` in the last frame; fills `path` and returns the state before the first."""
    for frame in range(len(choices) - 1, -1, -1):
        path[frame] = state
        state -= choices[frame, state]
    return state

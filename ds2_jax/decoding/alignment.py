"""Forced alignment: finds the frames of each label of a known text."""

from collections.abc import Sequence

import numpy as np

from ds2_jax.config.frames import ctc_min_frames
from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.system.errors import InputError
from ds2_jax.system.numba_cache import kernel
from ds2_jax.text.alphabet import Alphabet

BLOCK_FRAMES = 4096
"""Number of frames in a block. The search stores the scores at the start of each block, and the choices of one block
only, for states that can lead to the block's last state. It needs 16 N T' / 4096 + 2 * 4096² bytes: 70 MB for an hour
of 20 ms frames and 54,000 labels. All choices would take 19 GB."""


def align_labels(log_probs: np.ndarray, labels: Sequence[int]) -> list[LabelSpan]:
    """Finds the most probable path of an utterance among those that collapse to `labels` (Viterbi).

    Args:
        log_probs: [T', V] float32, natural logarithms, no padding; -inf for an impossible label.
        labels: [N], without blanks.

    Returns:
        The labels in order, each with its frames. Ties go to the path that is further in the text at the last frame
        where they differ. Sums are in float64. The labels of greedy decoding give the path of greedy decoding, except
        for ties.

    Raises:
        InputError: log_probs has NaN or positive infinity, a label is out of range, or the labels need more frames than
            there are or have probability 0.

    Source: Graves et al. 2006, "Connectionist temporal classification", section 4.1, with maxima instead of sums.
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
    """Finds the state of each frame on the best path.

    Returns:
        [T'] int64. State 2n is the blank before label n, 2n + 1 is label n, and 2N is the last blank.
    """
    num_frames, num_states = len(log_probs), 2 * len(labels) + 1
    label_of = np.full(num_states, Alphabet.blank_index, np.int64)
    label_of[1::2] = labels
    skips = np.zeros(num_states, np.bool_)  # whether a path may skip the state below
    skips[3::2] = labels[1:] != labels[:-1]
    scores = np.full(num_states, -np.inf)  # score of the best path to each state; paths start at the first blank
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
        lowest = max(0, state - 2 * len(frames))  # a frame climbs at most two states
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
    """Updates `scores` [S] over the frames, in place.

    It stores in `choices` [T', S] how many states the best step to each state climbs, unless the shape of `choices` is
    [0, 0].
    """
    keep = len(choices) > 0
    for frame in range(len(log_probs)):
        row = log_probs[frame]
        for state in range(
            len(scores) - 1, -1, -1
        ):  # downwards: lower states still have the scores of the previous frame
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
    """Follows the choices back from `state` in the last frame and fills `path`. Returns the state before the frames."""
    for frame in range(len(choices) - 1, -1, -1):
        path[frame] = state
        state -= choices[frame, state]
    return state

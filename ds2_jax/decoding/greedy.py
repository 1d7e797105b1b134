"""Greedy CTC decoding: the best label of every frame, repeats collapsed, blanks dropped."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ds2_jax.alphabet import Alphabet


class LabelSpan(NamedTuple):
    """A decoded label and the output frames that carry it, `first_frame` to `last_frame`, both included."""

    label: int
    first_frame: int
    last_frame: int


class Word(NamedTuple):
    """A word and where it lies, in seconds from the start of the utterance."""

    text: str
    start: float
    end: float


def greedy_decode(best_labels: np.ndarray, output_lengths: np.ndarray) -> list[list[LabelSpan]]:
    """Collapses the repeats of the best labels and drops the blanks.

    Args:
        best_labels: [B, T'] int, the label with the largest logit in each frame.
        output_lengths: [B] int, valid frames; what lies beyond them is not read.

    Returns:
        For each utterance its labels in order, never blank.
    """
    return [_spans(row[:length]) for row, length in zip(best_labels, output_lengths, strict=True)]


def _spans(labels: np.ndarray) -> list[LabelSpan]:
    starts = np.flatnonzero(np.diff(labels, prepend=-1))  # frames whose label differs from the one before
    ends = np.append(starts, len(labels))[1:] - 1
    runs = zip(labels[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
    return [LabelSpan(*run) for run in runs if run[0] != Alphabet.blank_index]


def transcript_and_words(
    spans: Iterable[LabelSpan], alphabet: Alphabet, seconds_per_frame: float
) -> tuple[str, list[Word]]:
    """Writes decoded labels as text, and says where each word lies.

    Args:
        spans: the labels of one utterance, in order.
        alphabet: what they stand for; its space separates words.
        seconds_per_frame: duration of an output frame.

    Returns:
        The words joined by single spaces, and the words: each from the start of its first label's first frame to the
        end of its last label's last frame. Leading, trailing and repeated spaces leave no trace.
    """
    words = []
    for is_space, group in itertools.groupby(spans, key=lambda span: alphabet.decode([span.label]) == " "):
        if not is_space:
            letters = list(group)
            text = alphabet.decode(span.label for span in letters)
            start, end = letters[0].first_frame, letters[-1].last_frame + 1
            words.append(Word(text, start * seconds_per_frame, end * seconds_per_frame))
    return " ".join(word.text for word in words), words

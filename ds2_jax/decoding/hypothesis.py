"""What decoding gives: labels on frames, and from them text, words, times and confidences."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.alphabet import Alphabet


class LabelSpan(NamedTuple):
    """A label and the output frames that carry it, `first_frame` to `last_frame`, both included."""

    label: int
    first_frame: int
    last_frame: int


class Character(NamedTuple):
    """A character and where it lies, in seconds from the start of the recording."""

    text: str
    start: float
    end: float


class Word(NamedTuple):
    """A word, where it lies in seconds from the start of the recording, and the probability that it is right."""

    text: str
    start: float
    end: float
    confidence: float
    characters: tuple[Character, ...]


class Hypothesis(NamedTuple):
    """One reading of an utterance.

    Attributes:
        text: its words, joined by single spaces.
        words: with times and confidences.
        confidence: in [0, 1], the probability that the whole text is right.
        score: what readings of one utterance are ranked by, nats; the larger the better.
    """

    text: str
    words: tuple[Word, ...]
    confidence: float
    score: float


def make_hypothesis(
    spans: Sequence[LabelSpan], log_probs: np.ndarray, alphabet: Alphabet, seconds_per_frame: float
) -> Hypothesis:
    """Writes labels on frames as words with their times and confidences.

    Args:
        spans: the labels of one utterance, in order.
        log_probs: [T', V] float32, of the same utterance.
        alphabet: what the labels stand for; its space separates words.
        seconds_per_frame: duration of an output frame.

    Returns:
        A word lasts from the start of its first label's first frame to the end of its last label's last frame. Its
        confidence is the least probability of its labels, each in its best frame; of the whole text, that of its least
        certain word. Leading, trailing and repeated spaces leave no trace. The score is that of the best path.
    """
    words = []
    for is_space, group in itertools.groupby(spans, key=lambda span: alphabet.decode([span.label]) == " "):
        if is_space:
            continue
        characters, least = [], 0.0
        for label, first, last in group:
            times = first * seconds_per_frame, (last + 1) * seconds_per_frame
            characters.append(Character(alphabet.decode([label]), *times))
            least = min(least, float(log_probs[first : last + 1, label].max()))
        text = "".join(character.text for character in characters)
        words.append(Word(text, characters[0].start, characters[-1].end, math.exp(least), tuple(characters)))
    return Hypothesis(
        text=" ".join(word.text for word in words),
        words=tuple(words),
        confidence=min((word.confidence for word in words), default=1.0),
        score=float(log_probs.max(axis=1).sum()),
    )

"""Combines the readings of several recognisers: aligns their words, and lets them vote for each."""

import math
from collections.abc import Sequence

import numpy as np

from ds2_jax.decoding.hypothesis import Character, Hypothesis, Word

Slot = tuple[Word | None, ...]
"""What each recogniser has in one place; None for nothing."""
SUBSTITUTION, SKIP, KNOWN_SKIP = 4, 3, 1
"""Costs of an alignment: another word and a word left out cost what they cost in NIST's tools. To leave out a place
that another recogniser left out too costs less."""


def rover(readings: Sequence[Hypothesis]) -> Hypothesis:
    """Combines one reading of each recogniser.

    In each place, a recogniser votes for its word with the word's confidence. For nothing it votes with the mean
    confidence of its words. The word with the most votes wins; ties go to the first recogniser.

    Args:
        readings: one reading of each recogniser, of the same recording.

    Returns:
        The words that won, with the times of the first recogniser that has them. The confidence of a word is the sum
        of the votes for it, divided by the number of recognisers.

    Source: Fiscus 1997, "A post-processing system to yield reduced word error rates: ROVER".
    Differs: a vote weighs its confidence. The paper weighs the number of votes and the confidence with fitted numbers,
        and "nothing" has a fitted confidence.
    """
    slots: list[Slot] = [(word,) for word in readings[0].words]
    for number, reading in enumerate(readings[1:], start=1):
        slots = _align(slots, reading.words, number)
    silent = [_mean_confidence(each) for each in readings]
    words: list[Word] = []
    for slot in slots:
        votes: dict[str, float] = {}
        for word, nothing in zip(slot, silent, strict=True):
            text = word.text if word else ""
            votes[text] = votes.get(text, 0.0) + (word.confidence if word else nothing) / len(slot)
        best = max(votes, key=votes.__getitem__)  # the first of equals
        if best:
            chosen = next(word for word in slot if word and word.text == best)
            words.append(_behind(chosen._replace(confidence=votes[best]), words[-1].end if words else 0.0))
    return Hypothesis(
        text=" ".join(word.text for word in words),
        words=tuple(words),
        confidence=math.prod(word.confidence for word in words) if words else float(np.mean(silent)),
        score=float(np.mean([each.score for each in readings])),
    )


def _mean_confidence(reading: Hypothesis) -> float:
    """The mean confidence of the words; of an empty reading, its own."""
    return sum(word.confidence for word in reading.words) / len(reading.words) if reading.words else reading.confidence


def _align(slots: Sequence[Slot], words: Sequence[Word], num_before: int) -> list[Slot]:
    """Adds the words of a recogniser to the places of the `num_before` before it, at the least cost."""
    skips = [KNOWN_SKIP if None in slot else SKIP for slot in slots]
    costs = np.zeros((len(slots) + 1, len(words) + 1), np.int64)
    costs[1:, 0] = np.cumsum(skips)
    costs[0] = SKIP * np.arange(len(words) + 1)
    beside = np.array([[_cost(slot, word) for word in words] for slot in slots]).reshape(len(slots), len(words))
    for i, skip in enumerate(skips):
        for j in range(len(words)):
            costs[i + 1, j + 1] = min(costs[i, j] + beside[i, j], costs[i, j + 1] + skip, costs[i + 1, j] + SKIP)
    i, j, aligned = len(slots), len(words), []
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + beside[i - 1, j - 1]:
            i, j = i - 1, j - 1
            aligned.append((*slots[i], words[j]))
        elif i and costs[i, j] == costs[i - 1, j] + skips[i - 1]:
            i -= 1
            aligned.append((*slots[i], None))
        else:
            j -= 1
            aligned.append((*(None,) * num_before, words[j]))
    return aligned[::-1]


def _cost(slot: Slot, word: Word) -> int:
    return 0 if any(each and each.text == word.text for each in slot) else SUBSTITUTION


def _behind(word: Word, start: float) -> Word:
    """Cuts off what lies before `start`, the end of the word before: words of several recognisers may overlap."""
    if word.start >= start:
        return word
    characters = tuple(Character(each.text, max(each.start, start), max(each.end, start)) for each in word.characters)
    return word._replace(start=start, end=max(word.end, start), characters=characters)

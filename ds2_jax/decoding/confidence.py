"""Confidences from the hypotheses of beam search: how probable they make each word."""

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from ds2_jax.decoding.hypothesis import Hypothesis

NUM_READINGS = 100
"""Number of hypotheses to compare. The area under the ROC curve was 0.91 with 100 and 0.81 with 10 (dev split of AN4,
no language model)."""


def posteriors(scores: Sequence[float]) -> np.ndarray:
    """Computes the probability of each of R hypotheses from its score in nats, assuming that one of them is correct.

    Returns:
        [R] float64.
    """
    values = np.array(scores, np.float64)
    weights = np.exp(values - values.max())
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def with_posteriors(reading: Hypothesis, texts: Sequence[str], probabilities: np.ndarray) -> Hypothesis:
    """Combines the confidences of a hypothesis with the probabilities of all hypotheses.

    A word's posterior is the total probability of the hypotheses that have this word at this place, found by the
    alignment with the fewest edits. The posterior of the whole text is the probability of the hypotheses with the same
    text. The new confidence is the mean of posterior and old confidence, because only the old one measures how well the
    best frames support the word.

    On the dev split of AN4 with a 3-gram, old confidence, posterior and mean had an area under the ROC curve of 0.918,
    0.873 and 0.928, and an expected calibration error of 0.021, 0.044 and 0.018. Dividing the scores by 1.5 or 2 gained
    nothing without a language model and little with one (0.932 and 0.931). The product of both was worse (error 0.031).

    Args:
        reading: one of the hypotheses.
        texts: the texts of all R hypotheses.
        probabilities: [R] float64, the result of `posteriors`.
    """
    words = reading.text.split()
    having = np.zeros(len(words))
    for text, probability in zip(texts, probabilities.tolist(), strict=True):
        for block in Levenshtein.opcodes(text.split(), words):
            if block.tag == "equal":
                having[block.dest_start : block.dest_end] += probability
    same = sum(
        probability for text, probability in zip(texts, probabilities.tolist(), strict=True) if text == reading.text
    )
    return reading._replace(
        words=tuple(
            word._replace(confidence=min((word.confidence + posterior) / 2, 1.0))
            for word, posterior in zip(reading.words, having.tolist(), strict=True)
        ),
        confidence=min((reading.confidence + same) / 2, 1.0),
    )

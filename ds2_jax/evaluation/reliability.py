"""Measures whether confidences are calibrated: eight of ten words with confidence 0.8 should be correct."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

NUM_BINS = 10


@dataclasses.dataclass(frozen=True)
class Bin:
    """The words, or utterances, whose confidence lies in one interval of [0, 1].

    Attributes:
        low: lower end of the interval, inclusive.
        high: upper end of the interval, exclusive; 1 belongs to the last bin.
        count: the number of words.
        confidence: their mean confidence.
        accuracy: the fraction of them that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Measures of the confidences of words, or of utterances.

    Attributes:
        count: the number of words.
        base_rate: the fraction of them that is right: the best constant confidence.
        calibration_error: see `expected_calibration_error`.
        area_under_curve: see `area_under_curve`.
    """

    count: int
    base_rate: float
    calibration_error: float
    area_under_curve: float | None

    def __str__(self) -> str:
        area = "undefined" if self.area_under_curve is None else f"{self.area_under_curve:.3f}"
        return (
            f"expected calibration error {self.calibration_error:.3f}, area under the ROC curve {area}, "
            f"{self.base_rate:.1%} of {self.count} right"
        )


def reliability(confidences: Sequence[float], correct: Sequence[bool]) -> Reliability | None:
    """Measures confidences; None if there are none.

    Args:
        confidences: [N], each in [0, 1].
        correct: [N], whether each word or utterance was right.
    """
    if not len(confidences):
        return None
    return Reliability(
        len(confidences),
        float(np.mean(correct)),
        expected_calibration_error(confidences, correct),
        area_under_curve(confidences, correct),
    )


def reliability_bins(confidences: Sequence[float], correct: Sequence[bool], num_bins: int = NUM_BINS) -> list[Bin]:
    """Sorts confidences into bins of equal width and leaves out the empty ones; arguments as for `reliability`."""
    values, right = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    assert len(values) == len(right)
    index = np.minimum((values * num_bins).astype(int), num_bins - 1)
    bins = []
    for each in np.unique(index).tolist():
        inside = index == each
        mean, accuracy = float(values[inside].mean()), float(right[inside].mean())
        bins.append(Bin(each / num_bins, (each + 1) / num_bins, int(inside.sum()), mean, accuracy))
    return bins


def expected_calibration_error(
    confidences: Sequence[float], correct: Sequence[bool], num_bins: int = NUM_BINS
) -> float:
    """Computes the mean difference of confidence and accuracy over `reliability_bins`, weighted by count; 0 is best.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    bins = reliability_bins(confidences, correct, num_bins)
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins) / max(total, 1)


def area_under_curve(confidences: Sequence[float], correct: Sequence[bool]) -> float | None:
    """Computes the probability that a right word has a higher confidence than a wrong one; ties count half.

    Returns:
        A probability, 0.5 for guesses; None if all words are right or all are wrong.

    Source: Hanley and McNeil 1982 (area under the receiver operating characteristic).
    """
    right = np.asarray(correct, bool)
    values, inverse, counts = np.unique(np.asarray(confidences, np.float64), return_inverse=True, return_counts=True)
    num_right, num_wrong = int(right.sum()), int((~right).sum())
    if not (num_right and num_wrong):
        return None
    wrong_at = np.bincount(inverse[~right], minlength=len(values))
    right_at = counts - wrong_at
    below = np.cumsum(wrong_at) - wrong_at
    return float((right_at * (below + wrong_at / 2)).sum() / (num_right * num_wrong))


def matching_words(reference: str, hypothesis: str) -> list[int | None]:
    """Matches the words of a hypothesis with its reference, by the fewest edits that turn one into the other.

    Returns:
        For each word of the hypothesis, its index in the reference, or None if it is wrong. A missing word does not
        make other words wrong.
    """
    said, heard = reference.split(), hypothesis.split()
    found: list[int | None] = [None] * len(heard)
    for block in Levenshtein.opcodes(said, heard):
        if block.tag == "equal":
            found[block.dest_start : block.dest_end] = range(block.src_start, block.src_end)
    return found


def right_words(reference: str, hypothesis: str) -> list[bool]:
    """Returns for each word of the hypothesis whether it is right; see `matching_words`."""
    return [position is not None for position in matching_words(reference, hypothesis)]

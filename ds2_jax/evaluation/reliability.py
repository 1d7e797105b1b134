"""Whether confidences are what they say: of words at confidence 0.8, eight in ten should be right."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

NUM_BINS = 10


@dataclasses.dataclass(frozen=True)
class Bin:
    """What is said with a confidence of one tenth of [0, 1].

    Attributes:
        low: least confidence; that of the next bin belongs to the next bin, but 1 to the last.
        high: the next bin's `low`.
        count: of what is said.
        confidence: mean.
        accuracy: share that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How good the confidences of a number of words, or of utterances, are.

    Attributes:
        count: of words.
        base_rate: share that is right: the confidence to give without looking.
        calibration_error: of `expected_calibration_error`.
        area_under_curve: of `area_under_curve`.
    """

    count: int
    base_rate: float
    calibration_error: float
    area_under_curve: float | None

    def __str__(self) -> str:
        area = "undefined" if self.area_under_curve is None else f"{self.area_under_curve:.3f}"
        return (
            f"expected calibration error {self.calibration_error:.3f}, area under the curve {area}, "
            f"{self.base_rate:.1%} of {self.count} right"
        )


def reliability(confidences: Sequence[float], correct: Sequence[bool]) -> Reliability | None:
    """Measures confidences; None where there are none.

    Args:
        confidences: [N], each in [0, 1].
        correct: [N], what was right.
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
    """Sorts confidences ([N], in [0, 1]) into bins of one width, leaves out the empty ones; see `reliability`."""
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
    """How far confidence and accuracy lie apart, the mean over `reliability_bins` by count; 0 is perfect.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    bins = reliability_bins(confidences, correct, num_bins)
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins) / max(total, 1)


def area_under_curve(confidences: Sequence[float], correct: Sequence[bool]) -> float | None:
    """The chance that something right has a higher confidence than something wrong, equals counting half.

    Returns:
        In [0, 1], 0.5 for guesses; None where all is right or all is wrong.

    Source: the area under the receiver operating characteristic; Hanley and McNeil 1982.
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
    """Finds the words of a hypothesis in its reference, by the fewest edits that turn one into the other.

    Returns:
        For each word of the hypothesis its position in the reference, counted from 0; None where it is wrong. A word
        that is missing makes no other wrong.
    """
    said, heard = reference.split(), hypothesis.split()
    found: list[int | None] = [None] * len(heard)
    for block in Levenshtein.opcodes(said, heard):
        if block.tag == "equal":
            found[block.dest_start : block.dest_end] = range(block.src_start, block.src_end)
    return found


def right_words(reference: str, hypothesis: str) -> list[bool]:
    """Which words of the hypothesis are right, see `matching_words`."""
    return [position is not None for position in matching_words(reference, hypothesis)]

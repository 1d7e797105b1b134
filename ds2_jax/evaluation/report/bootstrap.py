"""Computes bootstrap intervals of error rates, and paired comparisons of two runs.

The bootstrap draws whole speakers with replacement, because the errors of a speaker are correlated: with single
utterances, the interval would be too narrow. With few speakers the interval is still too narrow, because no resample
contains a new speaker. Take it as a lower bound on the uncertainty.

Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.evaluation.error_rates import ErrorCount
from ds2_jax.evaluation.results import Result

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
SEED = 0
MIN_SPEAKERS = 5
"""With fewer speakers, utterances are drawn instead."""
DRAWN_AT_ONCE = 2**21
"""The number of units drawn at once, which need tens of megabytes."""


class Interval(NamedTuple):
    """The middle 95 % of a bootstrap distribution."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Interval":
        """Computes the interval from the values of the resamples, [R] float."""
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return cls(float(low), float(high))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The word error rates of a run and another run on the same utterances.

    Attributes:
        against: the name of the other run.
        rate: WER of the run.
        other_rate: WER of the other run.
        interval: interval of `difference`.
        lower: fraction of the resamples in which the run has the lower rate.
        equal: fraction of the resamples in which the rates are equal.
        p_value: one-sided p-value of the hypothesis that the run does not have the lower rate. The resampled
            differences are shifted to a mean of 0; the p-value is the fraction that is at most the observed difference.
            The p-value is small if the run is better, and near 1 if the run is worse.
    """

    against: str
    rate: float
    other_rate: float
    interval: Interval
    lower: float
    equal: float
    p_value: float

    @property
    def difference(self) -> float:
        """WER of the run minus WER of the other run: negative if the run is better."""
        return self.rate - self.other_rate

    @property
    def higher(self) -> float:
        """Fraction of the resamples in which the run has the higher rate."""
        return 1 - self.lower - self.equal

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"against {self.against}: WER {self.rate:.2%} and {self.other_rate:.2%}, difference "
            f"{self.difference * 100:+.2f} points (95 % {low * 100:+.2f} to {high * 100:+.2f}); lower in "
            f"{self.lower:.1%} of the resamples, one-sided p-value {self.p_value:.4f}"
        )


class Bootstrap:
    """Draws the speakers of an evaluation with replacement, or its utterances if there are too few speakers.

    Every call draws the same resamples, so that the rates of two runs are paired and reports are reproducible.

    Args:
        results: one or more results.

    Attributes:
        unit: "speakers" if every utterance names one and there are at least `MIN_SPEAKERS`, else "utterances".
        num_units: the number of these units.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        speakers = [result.utterance.speaker for result in results]
        names = sorted(set(speakers))
        by_speaker = len(names) >= MIN_SPEAKERS and "" not in names
        self.unit = "speakers" if by_speaker else "utterances"
        self.num_units = len(names) if by_speaker else len(results)
        place = {name: index for index, name in enumerate(names)}
        self._units = np.array([place[name] for name in speakers]) if by_speaker else np.arange(len(results))

    def rates(self, counts: Sequence[ErrorCount]) -> np.ndarray:
        """Computes the corpus error rate of every resample.

        Args:
            counts: the errors of each utterance, in the order of the results.

        Returns:
            [R] float64.
        """
        sums = np.zeros((2, self.num_units), np.int64)
        np.add.at(sums[0], self._units, [count.edits for count in counts])
        np.add.at(sums[1], self._units, [count.reference_length for count in counts])
        generator = np.random.default_rng(SEED)
        rows = max(1, DRAWN_AT_ONCE // self.num_units)
        rates = []
        for start in range(0, NUM_RESAMPLES, rows):
            shape = min(rows, NUM_RESAMPLES - start), self.num_units
            drawn = generator.integers(self.num_units, size=shape, dtype=np.int32)  # [R', units]
            edits, reference_lengths = (each[drawn].sum(1) for each in sums)
            rates.append(edits / np.maximum(reference_lengths, 1))  # as `ErrorCount.rate`
        return np.concatenate(rates)

    def interval(self, counts: Sequence[ErrorCount]) -> Interval:
        """Computes the interval of the corpus error rate; `counts` as for `rates`."""
        return Interval.of(self.rates(counts))

    def compare(self, counts: Sequence[ErrorCount], other_counts: Sequence[ErrorCount], against: str) -> Comparison:
        """Compares a run with another, named `against`. Both counts are as for `rates` and of the same utterances."""
        rate, other_rate = (sum(each, start=ErrorCount()).rate for each in (counts, other_counts))
        differences = self.rates(counts) - self.rates(other_counts)
        found = rate - other_rate
        as_low = differences - found <= found + 1e-12  # so that rounding does not break ties
        return Comparison(
            against,
            rate,
            other_rate,
            Interval.of(differences),
            float((differences < 0).mean()),
            float((differences == 0).mean()),
            float((1 + as_low.sum()) / (1 + NUM_RESAMPLES)),
        )

    def __str__(self) -> str:
        return f"bootstrap over {self.num_units} {self.unit}"

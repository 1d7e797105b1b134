"""How far an error rate is to be trusted: bootstrap intervals, and paired comparisons of two runs.

What is drawn, with replacement, is whole speakers, since the errors of a speaker go together: utterances drawn on their
own would make the interval too narrow. Of few speakers even that interval is too narrow (nothing drawn shows a speaker
who is not there), so it is best read as a lower bound on the doubt.

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
"""Fewer speakers are too few to draw from, so that utterances are drawn."""
DRAWN_AT_ONCE = 2**21
"""Units that are drawn together: tens of megabytes."""


class Interval(NamedTuple):
    """The middle 95 % of a bootstrap distribution."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Interval":
        """Of the resamples' values, [R] float."""
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return cls(float(low), float(high))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The word error rates of a run and another one on the same utterances.

    Attributes:
        against: names the other.
        rate: WER of the run.
        other_rate: of the other.
        interval: of `difference`.
        lower: share of the resamples in which the run has the lower rate.
        equal: in which both have the same.
        p_value: one-sided, of the hypothesis that the run's rate is not the lower one: the share of the resamples,
            shifted so that they agree with no difference on average, whose difference is at most the one that was
            found. Small where the run is better; near 1 where it is worse.
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
        """WER of the run less that of the other: negative where the run is better."""
        return self.rate - self.other_rate

    @property
    def higher(self) -> float:
        """Share of the resamples in which the run has the higher rate."""
        return 1 - self.lower - self.equal

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"against {self.against}: WER {self.rate:.2%} and {self.other_rate:.2%}, difference "
            f"{self.difference * 100:+.2f} points (95 % {low * 100:+.2f} to {high * 100:+.2f}); lower in "
            f"{self.lower:.1%} of the resamples, one-sided p-value {self.p_value:.4f}"
        )


class Bootstrap:
    """Draws the speakers of an evaluation with replacement, or its utterances where it has too few speakers.

    Every call draws the same, so that the rates of two runs are paired, and a report can be repeated.

    Args:
        results: at least one.

    Attributes:
        unit: "speakers", if every utterance has one and they are at least `MIN_SPEAKERS`; else "utterances".
        num_units: how many there are.
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
        """The corpus error rate of every resample.

        Args:
            counts: of each utterance, in the order of the results.

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
        """Of the corpus error rate; `counts` as for `rates`."""
        return Interval.of(self.rates(counts))

    def compare(self, counts: Sequence[ErrorCount], other_counts: Sequence[ErrorCount], against: str) -> Comparison:
        """Compares a run with the one that `against` names; both counts as for `rates`, of the same utterances."""
        rate, other_rate = (sum(each, start=ErrorCount()).rate for each in (counts, other_counts))
        differences = self.rates(counts) - self.rates(other_counts)
        found = rate - other_rate
        as_low = differences - found <= found + 1e-12  # or rounding would break ties
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

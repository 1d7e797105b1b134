"""Compares the times of recognised words with the true times, if the manifest has them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.reliability import matching_words


@dataclasses.dataclass(frozen=True)
class TimeErrors:
    """Recognised times minus true times of the words that were recognised correctly.

    Attributes:
        starts: [W] float64, seconds.
        ends: [W] float64, seconds.
    """

    starts: np.ndarray
    ends: np.ndarray

    def __str__(self) -> str:
        return f"starts {_describe(self.starts)}, ends {_describe(self.ends)}, over {len(self.starts)} right words"


def time_errors(
    utterance: Utterance, reference: str, text: str, spans: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Compares the times of correctly recognised words with the true times.

    Args:
        utterance: an utterance of a manifest.
        reference: its normalised transcript.
        text: what was recognised.
        spans: start and end of each word of `text`, in seconds.

    Returns:
        For each correct word, the recognised minus the true start and end. The list is empty if the true times are
        unknown, or if normalising changed the number of words.
    """
    if len(utterance.words) != len(reference.split()):
        return []
    errors = []
    for position, (start, end) in zip(matching_words(reference, text), spans, strict=True):
        if position is not None:
            errors.append((start - utterance.words[position].start, end - utterance.words[position].end))
    return errors


def gather(errors: Sequence[tuple[float, float]]) -> TimeErrors | None:
    """Collects the `time_errors` of all utterances; None if there are none."""
    return TimeErrors(*np.array(errors, np.float64).T) if errors else None


def _describe(errors: np.ndarray) -> str:
    milliseconds = 1000 * np.abs(errors)
    median, most = np.percentile(milliseconds, [50, 95])
    return f"{milliseconds.mean():.0f} ms off in the mean ({median:.0f} in the median, 95 % within {most:.0f})"

"""Counts word and character errors and computes error rates.

The error rate of a corpus is the number of all edits over the number of all reference tokens. So add the counts of its
utterances before you take `rate`: `sum((word_errors(reference, hypothesis) for ...), start=ErrorCount())`.
"""

import collections
import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class ErrorCount:
    """The fewest edits that turn references into hypotheses, by kind, and the number of reference tokens."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    @property
    def edits(self) -> int:
        """The sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Edits per reference token, as a fraction; it can exceed 1 because of insertions.

        An empty reference counts as one token, so that the rate stays finite for JSON and sorting: the rate is 0 for an
        empty hypothesis, else the number of insertions.
        """
        return self.edits / max(self.reference_length, 1)

    def __add__(self, other: "ErrorCount") -> "ErrorCount":
        return ErrorCount(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )


def word_errors(reference: str, hypothesis: str) -> ErrorCount:
    """Counts the edits between the words of two texts."""
    return _count(reference.split(), hypothesis.split())


def char_errors(reference: str, hypothesis: str, *, spaces: bool) -> ErrorCount:
    """Counts the edits between the characters of two texts.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        spaces: whether the space between two words counts as a character.

    Source: deepspeech.pytorch counts without spaces, ESPnet with them.
    """
    separator = " " if spaces else ""
    return _count(separator.join(reference.split()), separator.join(hypothesis.split()))


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCount:
    from rapidfuzz.distance import Levenshtein  # tables of error rates do without it

    kinds = collections.Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    return ErrorCount(kinds["replace"], kinds["delete"], kinds["insert"], len(reference))

"""Word and character error rates, with the counts they are made of.

A corpus' rate is all edits over all reference tokens, so add the counts of its utterances before asking for `rate`:
`sum((word_errors(reference, hypothesis) for ...), start=ErrorCount())`.
"""

import collections
import dataclasses
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


@dataclasses.dataclass(frozen=True)
class ErrorCount:
    """Fewest edits that turn references into hypotheses, by kind, and the tokens in the references."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    @property
    def edits(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Edits per reference token, as a fraction; above 1 where insertions abound.

        An empty reference counts as one token: 0 for an empty hypothesis, else the number of insertions, which is
        finite and so survives JSON and sorting.
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
        spaces: whether the single space between two words is a character too.

    Source: without spaces deepspeech.pytorch's convention, with spaces ESPnet's.
    """
    separator = " " if spaces else ""
    return _count(separator.join(reference.split()), separator.join(hypothesis.split()))


def _count(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCount:
    kinds = collections.Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    return ErrorCount(kinds["replace"], kinds["delete"], kinds["insert"], len(reference))

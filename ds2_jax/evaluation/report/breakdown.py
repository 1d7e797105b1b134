"""Breaks the errors of an evaluation down by speaker, by length and by confused words."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors
from ds2_jax.evaluation.results import Result

LENGTHS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0, 24.0)
"""Boundaries between the bins of duration, in seconds."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of utterances of an evaluation.

    Attributes:
        name: what the utterances have in common.
        utterances: the number of utterances.
        seconds: their total duration.
        words: their word errors.
        characters: their character errors, without spaces.
    """

    name: str
    utterances: int
    seconds: float
    words: ErrorCount
    characters: ErrorCount

    @classmethod
    def of(cls, name: str, results: Sequence[Result]) -> "Group":
        """Makes a group from results."""
        return cls(
            name,
            len(results),
            sum(result.utterance.duration for result in results),
            sum((result.words for result in results), start=ErrorCount()),
            sum((char_errors(each.reference, each.hypothesis, spaces=False) for each in results), start=ErrorCount()),
        )


def by_speaker(results: Iterable[Result]) -> list[Group]:
    """Groups results by speaker, the highest word error rate first; no groups if no speaker is known."""
    groups: dict[str, list[Result]] = collections.defaultdict(list)
    for result in results:
        groups[result.utterance.speaker].append(result)
    if set(groups) <= {""}:
        return []
    named = [Group.of(speaker or "(not known)", members) for speaker, members in groups.items()]
    return sorted(named, key=lambda group: (-group.words.rate, group.name))


def by_length(results: Iterable[Result]) -> list[Group]:
    """Groups results by duration, the shortest first; empty groups are left out."""
    edges = (0.0, *LENGTHS)
    groups: dict[float, list[Result]] = {edge: [] for edge in edges}
    for result in results:
        groups[max(edge for edge in edges if edge <= result.utterance.duration)].append(result)
    names = [f"{low:g}–{high:g} s" for low, high in zip(edges, LENGTHS, strict=False)] + [f"from {LENGTHS[-1]:g} s"]
    return [Group.of(name, members) for name, members in zip(names, groups.values(), strict=True) if members]


class WordPair(NamedTuple):
    """A word of the reference and the word that was recognised for it; "" if one of them is missing."""

    reference: str
    hypothesis: str

    @property
    def kind(self) -> str:
        """The kind of edit, or "right"."""
        if self.reference == self.hypothesis:
            return "right"
        return "substitution" if all(self) else "deletion" if self.reference else "insertion"


def align_words(reference: str, hypothesis: str) -> list[WordPair]:
    """Aligns the words of two texts with the fewest edits, which are the ones that the error rate counts.

    Returns:
        The pairs in order. If several alignments have equally few edits, rapidfuzz chooses.
    """
    said, heard = reference.split(), hypothesis.split()
    pairs: list[WordPair] = []
    for edit in Levenshtein.opcodes(said, heard):
        width = max(edit.src_end - edit.src_start, edit.dest_end - edit.dest_start)
        words = [*said[edit.src_start : edit.src_end], *[""] * width][:width]
        others = [*heard[edit.dest_start : edit.dest_end], *[""] * width][:width]
        pairs += map(WordPair, words, others)
    return pairs


class Confusion(NamedTuple):
    """How often one word was recognised as another.

    Attributes:
        reference: the word; "" for an insertion.
        hypothesis: the recognised word; "" for a deletion.
        times: how often this happened.
        occurrences: how often the word occurs in the references; for an insertion, in the hypotheses.
    """

    reference: str
    hypothesis: str
    times: int
    occurrences: int


def confusions(results: Iterable[Result]) -> dict[str, list[Confusion]]:
    """Counts the word errors by kind ("substitution", "deletion", "insertion"), the most frequent first."""
    counts: collections.Counter[WordPair] = collections.Counter()
    said: collections.Counter[str] = collections.Counter()
    heard: collections.Counter[str] = collections.Counter()
    for result in results:
        counts.update(align_words(result.reference, result.hypothesis))
        said.update(result.reference.split())
        heard.update(result.hypothesis.split())
    found: dict[str, list[Confusion]] = {"substitution": [], "deletion": [], "insertion": []}
    for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if pair.kind != "right":
            occurrences = said[pair.reference] if pair.reference else heard[pair.hypothesis]
            found[pair.kind].append(Confusion(*pair, count, occurrences))
    return found

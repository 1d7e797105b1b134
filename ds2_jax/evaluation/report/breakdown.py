"""Breaks the errors of an evaluation down by speaker, by length and by confused words."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from rapidfuzz.distance import Levenshtein

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors
from ds2_jax.evaluation.results import Result
from ds2_jax.evaluation.word_alignment import WordPair, align_words

Pair = TypeVar("Pair", WordPair, tuple[str, str])
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


def by_length(results: Sequence[Result]) -> list[Group]:
    """Groups results by duration, the shortest first; without those of unknown duration, and without empty groups."""
    results = [result for result in results if result.utterance.duration]
    edges = (0.0, *LENGTHS)
    groups: dict[float, list[Result]] = {edge: [] for edge in edges}
    for result in results:
        groups[max(edge for edge in edges if edge <= result.utterance.duration)].append(result)
    names = [f"{low:g}–{high:g} s" for low, high in zip(edges, LENGTHS, strict=False)] + [f"from {LENGTHS[-1]:g} s"]
    return [Group.of(name, members) for name, members in zip(names, groups.values(), strict=True) if members]


class Confusion(NamedTuple):
    """How often one word or character was recognised as another.

    Attributes:
        reference: the word or character; "" for an insertion.
        hypothesis: what was recognised; "" for a deletion.
        times: how often this happened.
        occurrences: how often it occurs in the references; for an insertion, in the hypotheses.
    """

    reference: str
    hypothesis: str
    times: int
    occurrences: int


def confusions(results: Iterable[Result]) -> dict[str, list[Confusion]]:
    """Counts the word errors by kind ("substitution", "deletion", "insertion"), the most frequent first.

    "character" counts the characters that stand beside one another in substituted words. They show which sounds are
    confused.
    """
    counts: collections.Counter[WordPair] = collections.Counter()
    said: collections.Counter[str] = collections.Counter()
    heard: collections.Counter[str] = collections.Counter()
    characters: collections.Counter[str] = collections.Counter()
    for result in results:
        counts.update(align_words(result.reference, result.hypothesis, result.weights))
        said.update(result.reference.split())
        heard.update(result.hypothesis.split())
        characters.update(result.reference)
    found: dict[str, list[Confusion]] = {"substitution": [], "deletion": [], "insertion": [], "character": []}
    beside: collections.Counter[tuple[str, str]] = collections.Counter()
    for pair, count in _most_frequent(counts):
        if pair.kind != "right":
            occurrences = said[pair.reference] if pair.reference else heard[pair.hypothesis]
            found[pair.kind].append(Confusion(*pair, count, occurrences))
        if pair.kind == "substitution":
            beside.update(_characters(pair, count))
    found["character"] = [Confusion(*pair, count, characters[pair[0]]) for pair, count in _most_frequent(beside)]
    return found


def _characters(pair: WordPair, times: int) -> collections.Counter[tuple[str, str]]:
    """Counts the characters of two words that are replaced by others."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for edit in Levenshtein.opcodes(*pair):
        if edit.tag == "replace":
            said, heard = (
                pair.reference[edit.src_start : edit.src_end],
                pair.hypothesis[edit.dest_start : edit.dest_end],
            )
            for each in zip(said, heard, strict=True):
                counts[each] += times
    return counts


def _most_frequent(counts: collections.Counter[Pair]) -> list[tuple[Pair, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

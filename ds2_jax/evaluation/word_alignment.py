"""Aligns the words of a reference with those of a hypothesis."""

from typing import NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from ds2_jax.evaluation.error_rates import Weights, sclite_path, word_errors

MOST_CELLS = 20_000_000
"""Largest product of the words of the reference, those of the hypothesis, and the substitutions, each plus 1, for which
substituted words are paired by likeness. The costs then take 160 MB."""
EDIT = 2**40
"""The cost of an edit. The likeness of two words, of at most `ALIKE`, decides only among paths of as many edits."""
ALIKE = 2**12


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


def align_words(reference: str, hypothesis: str, weights: Weights = "equal") -> list[WordPair]:
    """Aligns the words of two texts with the edits that the error rate counts: as many of each kind.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        weights: how the error rate weighs edits.

    Returns:
        The pairs in order. Among the alignments with as many edits of each kind, it is one in which the substituted
        words are most alike: "arrivederci" stands beside "arivedec", not beside "chi". In texts of several hundred
        words with many errors (see MOST_CELLS), it is any one.
    """
    said, heard = reference.split(), hypothesis.split()
    errors = word_errors(reference, hypothesis, weights)
    if not errors.edits:
        return list(map(WordPair, said, heard))
    if (len(said) + 1) * (len(heard) + 1) * (errors.substitutions + 1) > MOST_CELLS:
        return _align_anyhow(said, heard) if weights == "equal" else _align_as_sclite(said, heard)
    alike = _likeness(said, heard)
    return _trace(said, heard, alike, _costs(said, heard, alike, errors.substitutions))


def _costs(said: list[str], heard: list[str], alike: np.ndarray, substitutions: int) -> np.ndarray:
    """Computes the least cost of turning the first i words into the first j with s substitutions.

    The cost is EDIT for each edit, less the likeness of each two substituted words.

    Returns:
        [I + 1, J + 1, S + 1] int64.
    """
    right = np.array(said, dtype=object)[:, None] == np.array(heard, dtype=object)[None]
    costs = np.full((len(said) + 1, len(heard) + 1, substitutions + 1), len(said + heard) * 2 * EDIT)
    insertions = EDIT * np.arange(len(heard) + 1)[:, None]
    costs[0, :, 0] = insertions[:, 0]
    for i in range(len(said)):
        row = costs[i] + EDIT  # a deletion
        row[1:, 1:] = np.minimum(row[1:, 1:], costs[i, :-1, :-1] + (EDIT - alike[i])[:, None])
        row[1:] = np.where(right[i][:, None], np.minimum(row[1:], costs[i, :-1]), row[1:])
        costs[i + 1] = np.minimum.accumulate(row - insertions) + insertions
    return costs


def _trace(said: list[str], heard: list[str], alike: np.ndarray, costs: np.ndarray) -> list[WordPair]:
    """Goes back from the end of both texts along the least costs."""
    i, j, s = len(said), len(heard), costs.shape[2] - 1
    pairs = []
    while i or j:
        cost = costs[i, j, s]
        if i and j and said[i - 1] == heard[j - 1] and cost == costs[i - 1, j - 1, s]:
            i, j = i - 1, j - 1
            pairs.append(WordPair(said[i], heard[j]))
        elif i and j and s and cost == costs[i - 1, j - 1, s - 1] + EDIT - alike[i - 1, j - 1]:
            i, j, s = i - 1, j - 1, s - 1
            pairs.append(WordPair(said[i], heard[j]))
        elif i and cost == costs[i - 1, j, s] + EDIT:
            i -= 1
            pairs.append(WordPair(said[i], ""))
        else:
            j -= 1
            pairs.append(WordPair("", heard[j]))
    return pairs[::-1]


def _likeness(said: list[str], heard: list[str]) -> np.ndarray:
    """Measures how alike the letters of each two words are: [I, J] int64, ALIKE for equal words."""
    shares = process.cdist(said, heard, scorer=Levenshtein.normalized_similarity, dtype=np.float32)
    return np.asarray(np.round(shares * ALIKE), np.int64).reshape(len(said), len(heard))


def _align_anyhow(said: list[str], heard: list[str]) -> list[WordPair]:
    """Takes the alignment that rapidfuzz finds."""
    pairs: list[WordPair] = []
    for edit in Levenshtein.opcodes(said, heard):
        width = max(edit.src_end - edit.src_start, edit.dest_end - edit.dest_start)
        words = [*said[edit.src_start : edit.src_end], *[""] * width][:width]
        others = [*heard[edit.dest_start : edit.dest_end], *[""] * width][:width]
        pairs += map(WordPair, words, others)
    return pairs


def _align_as_sclite(said: list[str], heard: list[str]) -> list[WordPair]:
    path = sclite_path(said, heard)
    return [WordPair("" if i is None else said[i], "" if j is None else heard[j]) for i, j in path]

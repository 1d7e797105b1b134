"""The arrays of beam search: records, and the tuples that hold them together for compiled code."""

from typing import NamedTuple

import numpy as np

SPACE = 0
"""What stands for a space among letters, which are counted from 1."""
NODE = np.dtype(
    [
        ("parent", np.int32),  # -1: none. Node 0 is the root
        ("label", np.int32),  # -1: none, in the empty prefix
        ("child", np.int32),  # the node's first child, -1: none
        ("sibling", np.int32),  # the next child of the node's parent, -1: none
        ("slot", np.int32),  # the node's index among the active nodes, -1: not active
        ("length", np.int32),  # number of letters in the prefix's last word, 0 after a space
        ("low", np.int32),  # words low to high - 1 of the vocabulary begin with the letters of the last word
        ("high", np.int32),
        ("word", np.int32),  # the vocabulary's word with exactly these letters, -1: none
        ("hot", np.int32),  # state of the hot words' automaton
        ("state", np.int64),  # state of the language model before the last word
        ("word_state", np.int64),  # state of the language model after the last word
        ("word_score", np.float64),  # nats of the last word; NaN: no score yet
        ("settled", np.float64),  # nats of the words before the last word
        ("pending", np.float64),  # provisional nats of the last word, dropped when the word is complete
    ],
    align=True,
)
ACTIVE = np.dtype([("node", np.int64), ("blank", np.float64), ("label", np.float64), ("total", np.float64)])
"""An active node and three log-probabilities of its prefix: of all alignments that end in blank, of all that end in its
label, and of both together."""
CANDIDATE = np.dtype(
    [("slot", np.int32), ("added", np.int32), ("blank", np.float64), ("label", np.float64), ("total", np.float64)]
)
"""A candidate for the next frame: an active node itself (added -1), or the node with the label `added` appended."""


class Search(NamedTuple):
    """The state of a search: its trie, the active nodes, and scratch arrays."""

    counts: np.ndarray
    nodes: np.ndarray
    actives: np.ndarray
    following: np.ndarray
    asking: np.ndarray
    words: np.ndarray
    candidates: np.ndarray
    scores: np.ndarray
    order: np.ndarray
    taken: np.ndarray
    labels: np.ndarray
    row: np.ndarray


class Vocabulary(NamedTuple):
    """Words sorted by letters: word w has `letters[starts[w] : starts[w + 1]]`, and id `ids[w]` in its model."""

    letters: np.ndarray
    starts: np.ndarray
    ids: np.ndarray


class Spelling(NamedTuple):
    """The text of the labels: label v adds `letters[starts[v] : starts[v + 1]]`, to a new word if `begins[v]`."""

    letters: np.ndarray
    starts: np.ndarray
    begins: np.ndarray


class HotWords(NamedTuple):
    """An automaton with S states that reads letters."""

    transitions: np.ndarray  # [S, C] int32, the next state after SPACE and after each letter
    credits: np.ndarray  # [S], the provisional bonus of a partial match in nats
    awards: np.ndarray  # [S], the bonus in nats if a word ends in the state


class Rules(NamedTuple):
    """Settings of a search, see `DecodingOptions`.

    Attributes:
        space: the label that is nothing but a space, or -1.
        spaced: whether spaces separate words; otherwise each label is a word.
        pieces: whether a label can be both a space and characters.
        scored: whether there is a language model.
        largest_credit: the largest provisional bonus of a hot word in nats.
    """

    width: int
    threshold: float
    max_labels: int
    label_threshold: float
    space: int
    spaced: bool
    pieces: bool
    scored: bool
    closed: bool
    unknown_penalty: float
    largest_credit: float

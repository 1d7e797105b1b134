"""Word n-gram models in compact arrays, read from ARPA files. `load` reads any kind of language model."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.decoding.ngram.arpa import SPECIALS, reading
from ds2_jax.decoding.ngram.cache import read_through_cache
from ds2_jax.decoding.ngram.kenlm_model import KenLMModel, is_kenlm_binary
from ds2_jax.decoding.ngram.language_model import LanguageModel, WordScore, split
from ds2_jax.decoding.ngram.trie import NGramArrays, find_all, next_word


class NGramModel(LanguageModel):
    """An n-gram model in the arrays of trie.py.

    A word's id is its index in `vocabulary`. `begin_word`, `end_word` and `unknown_word` are the ids after these.

    Attributes:
        arrays: the trie, for compiled functions such as `trie.next_word`.
        order_starts: [order + 1] int64, the first node of each order, then the number of nodes.
    """

    def __init__(self, vocabulary: tuple[str, ...], arrays: NGramArrays, order_starts: np.ndarray) -> None:
        self.vocabulary = vocabulary
        self.arrays = arrays
        self.order_starts = order_starts
        self.order = len(order_starts) - 1
        self.begin_word, self.end_word, self.unknown_word = range(len(vocabulary), len(vocabulary) + len(SPECIALS))
        self.begin_state = int(arrays.next_state[1 + self.begin_word])

    @functools.cached_property
    def word_ids(self) -> dict[str, int]:
        """The id of each word, including <s>, </s> and <unk>."""
        return {word: index for index, word in enumerate((*self.vocabulary, *SPECIALS))}

    def word_id(self, word: str) -> int:
        """Returns the id of a word, or `unknown_word` if the model does not know it."""
        return self.word_ids.get(word, self.unknown_word)

    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """See `LanguageModel`."""
        return next_word(self.arrays, state, self.word_id(word))

    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        """See `LanguageModel`.

        Differs: if a file lists an n-gram but not the n-gram's beginning, the length counts the beginning as one of the
            model's n-grams, and KenLM refuses the model. If the file does not list the n-gram's end, KenLM's length
            counts the end as one of the model's n-grams.
        """
        words = [self.word_id(word) for word in split(sentence)] + [self.end_word] * end
        nodes, log10 = find_all(self.arrays, self.begin_state if begin else 0, np.array(words, np.int64))
        lengths = np.searchsorted(self.order_starts, nodes, side="right")
        unknown = (word == self.unknown_word for word in words)
        return [WordScore(*each) for each in zip(log10.tolist(), lengths.tolist(), unknown, strict=True)]


def load(path: Path) -> LanguageModel:
    """Reads a language model.

    Args:
        path: an ARPA file, plain or gzipped, or a binary file of KenLM. ARPA files are read through the cache of
            cache.py. KenLM files need the package `kenlm`.

    Raises:
        InputError: the file cannot be read; see `arpa.read_arpa`, `trie.build` and `KenLMModel`.
    """
    with reading(path):
        return KenLMModel(path) if is_kenlm_binary(path) else NGramModel(*read_through_cache(path))

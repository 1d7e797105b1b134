"""Word n-gram models in compact arrays, read from ARPA files; the one place that tells what kind of model a file is."""

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
    """A model as trie.py keeps it. Word ids: a place in `vocabulary`, then `begin_word`, `end_word`, `unknown_word`.

    Attributes:
        arrays: for compiled functions, with `trie.next_word`.
        order_starts: [order + 1] int64, the first node of each order, and the number of nodes.
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
        """The id of each word, with <s>, </s> and <unk>."""
        return {word: index for index, word in enumerate((*self.vocabulary, *SPECIALS))}

    def word_id(self, word: str) -> int:
        """The id of a word, `unknown_word` where the model does not know it."""
        return self.word_ids.get(word, self.unknown_word)

    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """See `LanguageModel`."""
        return next_word(self.arrays, state, self.word_id(word))

    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        """See `LanguageModel`.

        Differs: where an n-gram is listed without its beginning (its end), the length counts the beginning as one of
        the model's n-grams; KenLM refuses such a model (counts the end).
        """
        words = [self.word_id(word) for word in split(sentence)] + [self.end_word] * end
        nodes, log10 = find_all(self.arrays, self.begin_state if begin else 0, np.array(words, np.int64))
        lengths = np.searchsorted(self.order_starts, nodes, side="right")
        unknown = (word == self.unknown_word for word in words)
        return [WordScore(*each) for each in zip(log10.tolist(), lengths.tolist(), unknown, strict=True)]


def load(path: Path) -> LanguageModel:
    """Reads a language model.

    Args:
        path: an ARPA file, plain or gzipped, which is read through the cache of cache.py; or a binary file of KenLM,
            which needs the package `kenlm`.

    Raises:
        InputError: it cannot be read; see `arpa.read_arpa`, `trie.build` and `KenLMModel`.
    """
    with reading(path):
        return KenLMModel(path) if is_kenlm_binary(path) else NGramModel(*read_through_cache(path))

"""A language model as the beam search asks it: words by number, many at once."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ds2_jax.ngram.model import NGramModel
from ds2_jax.ngram.trie import next_words

UNKNOWN = -1
"""Number of a word that the language model does not know."""


class LanguageModel(Protocol):
    """What decoding needs of a language model; probabilities are decimal logarithms, states are integers."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Its words, without `<s>`, `</s>` and `<unk>`."""

    @property
    def begin_state(self) -> int:
        """Before the first word."""

    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """log10 p(word | state) and the state behind it; `</s>` ends a sentence, an unknown word is `<unk>`."""


class WordModel(Protocol):
    """What a search asks."""

    start: int

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores words, each behind a state of its own.

        Args:
            states: [N] int64.
            words: [N] int64, numbers in the vocabulary, or `UNKNOWN`.

        Returns:
            log10 probabilities [N] float64, and the states behind the words [N] int64.
        """

    def end(self, states: np.ndarray) -> np.ndarray:
        """log10 probabilities of `</s>` behind states, [N] float64."""


class WordByWord:
    """Any language model, asked in Python."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.start = model.begin_state

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `WordModel`."""
        vocabulary = self._model.vocabulary
        spelt = ["<unk>" if word == UNKNOWN else vocabulary[word] for word in words.tolist()]
        answers = list(map(self._model.next_word, states.tolist(), spelt))
        return np.array([log10 for log10, _ in answers]), np.array([state for _, state in answers], np.int64)

    def end(self, states: np.ndarray) -> np.ndarray:
        """See `WordModel`."""
        return np.array([self._model.next_word(state, "</s>")[0] for state in states.tolist()])


class NGramWords:
    """An n-gram model in arrays, asked in machine code."""

    def __init__(self, model: NGramModel) -> None:
        self._arrays, self._end, self._unknown = model.arrays, model.end_word, model.unknown_word
        self.start = model.begin_state

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `WordModel`."""
        return next_words(self._arrays, states, np.where(words == UNKNOWN, self._unknown, words))

    def end(self, states: np.ndarray) -> np.ndarray:
        """See `WordModel`."""
        return next_words(self._arrays, states, np.full(len(states), self._end))[0]


def word_model(model: LanguageModel) -> WordModel:
    """The fastest way to ask a model."""
    return NGramWords(model) if isinstance(model, NGramModel) else WordByWord(model)

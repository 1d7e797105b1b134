"""The interface between beam search and language models. It scores many words at once, by their vocabulary indices."""

from typing import Protocol

import numpy as np

from ds2_jax.decoding.ngram.kenlm_model import KenLMModel
from ds2_jax.decoding.ngram.language_model import LanguageModel
from ds2_jax.decoding.ngram.model import NGramModel
from ds2_jax.decoding.ngram.trie import next_words

UNKNOWN = -1
"""Number of a word that the language model does not know."""


class WordModel(Protocol):
    """A language model as one search uses it. The states of other searches mean nothing to it."""

    def begin(self) -> int:
        """Returns the state before the first word of an utterance."""

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores each word after its own state.

        Args:
            states: [N] int64.
            words: [N] int64, indices into the vocabulary, or `UNKNOWN`.

        Returns:
            log10 probabilities [N] float64, and the states after the words [N] int64.
        """

    def end(self, states: np.ndarray) -> np.ndarray:
        """Returns the log10 probability of `</s>` after each state, [N] float64."""

    def keep(self, states: np.ndarray) -> None:
        """Tells the model that the search will use no states but these, [N] int64, and the first."""


class NGramWords:
    """An n-gram model in arrays, called in compiled code."""

    def __init__(self, model: NGramModel) -> None:
        self._model = model

    def begin(self) -> int:
        """See `WordModel`."""
        return self._model.begin_state

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `WordModel`."""
        return next_words(self._model.arrays, states, np.where(words == UNKNOWN, self._model.unknown_word, words))

    def end(self, states: np.ndarray) -> np.ndarray:
        """See `WordModel`."""
        return next_words(self._model.arrays, states, np.full(len(states), self._model.end_word))[0]

    def keep(self, states: np.ndarray) -> None:
        """See `WordModel`. A state is a place in the model's arrays and needs no memory."""


class WordByWord:
    """Any language model, called in Python word by word."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model.with_own_states()

    def begin(self) -> int:
        """See `WordModel`."""
        return self._model.begin_state

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `WordModel`."""
        vocabulary = self._model.vocabulary
        spelt = ["<unk>" if word == UNKNOWN else vocabulary[word] for word in words.tolist()]
        answers = list(map(self._model.next_word, states.tolist(), spelt))
        return np.array([log10 for log10, _ in answers]), np.array([state for _, state in answers], np.int64)

    def end(self, states: np.ndarray) -> np.ndarray:
        """See `WordModel`."""
        return np.array([self._model.next_word(state, "</s>")[0] for state in states.tolist()])

    def keep(self, states: np.ndarray) -> None:
        """See `WordModel`."""
        if isinstance(self._model, KenLMModel):
            self._model.keep(states)


def word_model(model: LanguageModel) -> WordModel:
    """Makes the fastest interface to a language model for one search."""
    return NGramWords(model) if isinstance(model, NGramModel) else WordByWord(model)

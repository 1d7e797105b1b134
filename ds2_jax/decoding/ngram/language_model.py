"""The common interface of language models."""

import abc
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ds2_jax.system.errors import InputError


class WordScore(NamedTuple):
    """A model's score for one word of a sentence.

    Attributes:
        log10: log10 probability of the word after the words before it.
        length: number of words in the model's longest n-gram that matches this word and the words before it.
        unknown: whether the word is unknown to the model.
    """

    log10: float
    length: int
    unknown: bool


class LanguageModel(abc.ABC):
    """Computes the probability of a word after the words before it.

    A sentence is a string whose words are separated by white space, or a sequence of words. For a language without
    spaces the words are characters, and a sentence is a sequence of characters.

    Attributes:
        order: number of words in the longest n-grams.
        vocabulary: the known words, sorted by code points, without <s>, </s> and <unk>.
        begin_state: the state at the beginning of a sentence, after <s>.
    """

    order: int
    vocabulary: tuple[str, ...]
    begin_state: int

    @abc.abstractmethod
    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """Returns the log10 probability of a word after a state, and the state after the word. </s> ends a sentence."""

    def with_own_states(self) -> "LanguageModel":
        """Returns this model with states that no other user of the model can change."""
        return self

    @abc.abstractmethod
    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        """Scores each word of a sentence.

        Args:
            sentence: a string or a sequence of words.
            begin: whether <s> precedes the first word. Otherwise the first word has no context.
            end: whether to score </s> after the last word.

        Returns:
            One score for each word, and one for </s> if `end` is set.
        """

    def score(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> float:
        """Returns the log10 probability of a sentence. The arguments are those of `word_scores`."""
        return sum(word.log10 for word in self.word_scores(sentence, begin=begin, end=end))

    def perplexity(self, sentences: Iterable[str | Sequence[str]]) -> float:
        """Computes the inverse of the geometric mean probability of all words, including unknown words and each </s>.

        Raises:
            InputError: there is no sentence.
        """
        words = [word for sentence in sentences for word in self.word_scores(sentence)]
        if not words:
            raise InputError("The text must hold a sentence, got none. Name another file.")
        return float(10 ** (-sum(word.log10 for word in words) / len(words)))


def split(sentence: str | Sequence[str]) -> Sequence[str]:
    """Splits a sentence into words."""
    return sentence.split() if isinstance(sentence, str) else sentence

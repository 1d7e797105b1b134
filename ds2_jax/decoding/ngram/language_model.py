"""What the models of words have in common, whatever they were read from."""

import abc
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ds2_jax.system.errors import InputError


class WordScore(NamedTuple):
    """What a model says of one word of a sentence.

    Attributes:
        log10: of its probability after the words before it.
        length: words of the longest n-gram that ends with it and that the model has: itself and words before it.
        unknown: whether the model does not know it.
    """

    log10: float
    length: int
    unknown: bool


class LanguageModel(abc.ABC):
    """Gives the probability of a word after the words before it.

    Sentences are text, whose words white space separates, or the words one by one. Where the words are characters, for
    a language without spaces, that is the characters one by one.

    Attributes:
        order: the most words that an n-gram has.
        vocabulary: the known words, sorted by code points, without <s>, </s> and <unk>.
        begin_state: the state after <s>, where sentences begin.
    """

    order: int
    vocabulary: tuple[str, ...]
    begin_state: int

    @abc.abstractmethod
    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """The log10 probability of a word after a state, and the state after it; </s> is a sentence's end."""

    @abc.abstractmethod
    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        """Scores each word of a sentence.

        Args:
            sentence: see the class.
            begin: whether the first word follows <s>, and not nothing.
            end: whether </s> follows the last.

        Returns:
            One for each word, and for </s> if it `end`s.
        """

    def score(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> float:
        """The log10 probability of a sentence; the arguments are those of `word_scores`."""
        return sum(word.log10 for word in self.word_scores(sentence, begin=begin, end=end))

    def perplexity(self, sentences: Iterable[str | Sequence[str]]) -> float:
        """The inverse of the mean probability (geometric) of all words, unknown ones and each </s> among them.

        Raises:
            InputError: there is no sentence.
        """
        words = [word for sentence in sentences for word in self.word_scores(sentence)]
        if not words:
            raise InputError("The text must hold a sentence, got none. Name another file.")
        return float(10 ** (-sum(word.log10 for word in words) / len(words)))


def split(sentence: str | Sequence[str]) -> Sequence[str]:
    """The words of a sentence."""
    return sentence.split() if isinstance(sentence, str) else sentence

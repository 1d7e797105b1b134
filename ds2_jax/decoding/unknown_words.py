"""Notices a language model that does not fit: many of the recognised words are not in it."""

from collections.abc import Callable
from pathlib import Path

from ds2_jax.system.errors import shorten
from ds2_jax.system.program import command

MANY = 0.1
"""From this share of unknown words on, the language model or its weights do not fit the run."""


class UnknownWords:
    """Counts recognised words that a language model lacks.

    Args:
        knows: whether the language model knows a word; see `Decoder.knows`.
        few: number of unknown words that mean nothing, because there are few words at all.
    """

    def __init__(self, knows: Callable[[str], bool], few: int = 0) -> None:
        self._knows, self._few = knows, few
        self._num_words = self._num_unknown = 0
        self._first = ""

    def add(self, text: str) -> None:
        """Counts the words of a text."""
        for word in text.split():
            self._num_words += 1
            if not self._knows(word):
                self._num_unknown += 1
                self._first = self._first or word

    def hint(self, run: Path, lm: Path) -> str:
        """Says what to do if many words are unknown; "" if they are few.

        Args:
            run: the folder of the run.
            lm: the language model.
        """
        if self._num_unknown <= max(self._few, MANY * self._num_words):
            return ""
        found = (
            f"{self._num_unknown} of the {self._num_words} recognised words are not in {lm}, such as "
            f"{shorten(self._first)}"
        )
        tune = command("lm", "tune", run, "--lm", lm)
        others = "--closed-vocabulary allows no such word, and a larger --unknown-penalty makes them dearer"
        return f"{found}: {tune} looks for better weights, {others}"

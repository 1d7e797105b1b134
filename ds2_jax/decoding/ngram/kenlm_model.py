"""Reads KenLM's binary files with the package `kenlm`, if it is installed."""

import copy
import itertools
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.decoding.ngram.arpa import SPECIALS, UNKNOWN
from ds2_jax.decoding.ngram.language_model import LanguageModel, WordScore, split
from ds2_jax.system.errors import InputError

MAGIC = b"mmap lm http://kheafield.com/code"
FIRST_WORD = b"<unk>\0"
"""First entry of the list of words at the end of the file. A null byte follows each word."""
MOST_RESULTS = 2**16
"""Number of stored results above which `KenLMModel.keep` frees memory: some 20 MB."""


def is_kenlm_binary(path: Path) -> bool:
    """Whether a file begins like a binary file of KenLM.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class KenLMModel(LanguageModel):
    """A language model that KenLM reads and evaluates.

    It numbers KenLM's states; equal states have the same number. It stores the result of each `next_word`, so that a
    repeated call only looks it up. `with_own_states` gives each search numbers and results of its own.

    Args:
        path: a binary file of KenLM's probing or trie type.

    Raises:
        InputError: the package `kenlm` is not installed or cannot read the file, or the file does not list its words.
    """

    begin_state = 0

    def __init__(self, path: Path) -> None:
        try:
            import kenlm
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path} must be an ARPA file if the package kenlm is not installed, got a binary file of KenLM. "
                "Name the ARPA file it was made from, or `pip install kenlm`, which needs a C++ compiler and CMake."
            ) from error
        try:
            self._model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path} must be a binary file that KenLM reads, got: {error}") from error
        self._new_state = kenlm.State
        self.order = self._model.order
        self.vocabulary = self._read_vocabulary(path)
        self._forget_states()

    def _forget_states(self) -> None:
        begin = self._new_state()
        self._model.BeginSentenceWrite(begin)
        self._states: dict[int, Any] = {self.begin_state: begin}
        self._numbers = {begin: self.begin_state}
        self._unused = itertools.count(self.begin_state + 1)
        self._seen: dict[tuple[int, str], tuple[float, int]] = {}

    def with_own_states(self) -> "KenLMModel":
        """See `LanguageModel`."""
        other = copy.copy(self)
        other._forget_states()
        return other

    def keep(self, states: np.ndarray) -> None:
        """Frees the stored results once there are many. All states but `states` and `begin_state` become invalid."""
        if len(self._seen) > MOST_RESULTS:
            self._states = {number: self._states[number] for number in {self.begin_state, *states.tolist()}}
            self._numbers = {state: number for number, state in self._states.items()}
            self._seen = {}

    def next_word(self, state: int, word: str) -> tuple[float, int]:
        """See `LanguageModel`."""
        seen = self._seen.get((state, word))
        if seen is None:
            after = self._new_state()
            log10 = self._model.BaseScore(self._states[state], word, after)
            number = self._numbers.get(after)
            if number is None:
                number = self._numbers[after] = next(self._unused)
                self._states[number] = after
            seen = self._seen[state, word] = log10, number
        return seen

    def word_scores(self, sentence: str | Sequence[str], *, begin: bool = True, end: bool = True) -> list[WordScore]:
        """See `LanguageModel`."""
        scores = self._model.full_scores(" ".join(split(sentence)), bos=begin, eos=end)
        return [WordScore(*each) for each in scores]

    def _read_vocabulary(self, path: Path) -> tuple[str, ...]:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(FIRST_WORD)
            words = content[start:].decode(errors="replace").split("\0") if start >= 0 else []
        known = set(words[:-1]) - {UNKNOWN}
        if not known or not all(word in self._model for word in known):
            raise InputError(
                f"{path} must list its words in UTF-8, got no words or another encoding. Make it again with its words."
            )
        return tuple(sorted(known - set(SPECIALS)))

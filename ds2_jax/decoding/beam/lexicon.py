"""Spells labels, and the words of a language model, with the characters of an alphabet."""

import logging
import math
from collections.abc import Iterable, Mapping

import numpy as np

from ds2_jax.decoding.beam.arrays import Spelling, Vocabulary
from ds2_jax.decoding.beam.word_model import UNKNOWN
from ds2_jax.decoding.ngram.language_model import LanguageModel
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


def make_vocabulary(model: LanguageModel, alphabet: Alphabet, name: str, hot: Iterable[str] = ()) -> Vocabulary:
    """Spells the words of a language model. It logs how many words the alphabet cannot spell.

    Args:
        model: the language model. If several words have the same spelling, only the most probable one is used.
        alphabet: the alphabet, which also normalises case, removed characters and Unicode form. If it has no space, it
            can spell only words of one character.
        name: the language model's file, for messages.
        hot: normalised words that count as known even if the model does not know them.

    Returns:
        The words, sorted by their letters.

    Raises:
        InputError: the alphabet can spell none of the model's words.
    """
    characters = set(alphabet.characters) - {" "}
    longest = math.inf if alphabet.spaced else 1
    spelt: dict[str, int] = {}
    left_out = []
    for number, word in enumerate(model.vocabulary):
        text = alphabet.normalise(word)
        if not characters.issuperset(text) or not 0 < len(text) <= longest:
            left_out.append(word)
        elif text not in spelt or _log10(model, word) > _log10(model, model.vocabulary[spelt[text]]):
            spelt[text] = number
    if not spelt:
        raise InputError(
            f"{name} must hold words of the alphabet {shorten(repr(alphabet.characters))}, got only other words: "
            f"{shorten(repr(left_out[:5]))}. Give a language model of the language that the run was trained on."
        )
    if left_out:
        logger.warning(
            f"{name}: {len(left_out)} of {len(model.vocabulary)} words cannot be recognised, because the alphabet "
            f"cannot spell them: {shorten(', '.join(left_out[:5]))}"
        )
    for word in hot:
        spelt.setdefault(word, UNKNOWN)
    return _sorted(spelt, alphabet)


def _log10(model: LanguageModel, word: str) -> float:
    """Returns the log10 probability of a word after <unk>, a context that says nothing about it."""
    return model.next_word(model.next_word(model.begin_state, "<unk>")[1], word)[0]


def spelling_of(alphabet: Alphabet) -> Spelling:
    """Spells each label, the blank included, with its characters other than the space."""
    numbers = {character: number for number, character in enumerate(alphabet.characters, start=1)}
    words = ["", *(unit.removeprefix(" ") for unit in alphabet.units)]
    letters = np.array([numbers[character] for word in words for character in word], np.int32)
    starts = np.cumsum([0] + [len(word) for word in words], dtype=np.int64)
    begins = [False, *(unit.startswith(" ") or not alphabet.spaced for unit in alphabet.units)]
    return Spelling(letters, starts, np.array(begins))


def empty_vocabulary() -> Vocabulary:
    """Returns a vocabulary without words."""
    return Vocabulary(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))


def _sorted(spelt: Mapping[str, int], alphabet: Alphabet) -> Vocabulary:
    # Replace each character by the one whose code point is its number, so that sorting strings sorts by numbers.
    table = {ord(character): number for number, character in enumerate(alphabet.characters, start=1)}
    words = sorted((text.translate(table), number) for text, number in spelt.items())
    letters = np.array([ord(letter) for word, _ in words for letter in word], np.int32)
    starts = np.cumsum([0] + [len(word) for word, _ in words], dtype=np.int64)
    return Vocabulary(letters, starts, np.array([number for _, number in words], np.int64))

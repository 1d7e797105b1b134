"""The words of a language model in the labels of an alphabet."""

import logging
import math
from collections.abc import Iterable, Mapping

import numpy as np

from ds2_jax.decoding.beam.kernel import Vocabulary
from ds2_jax.decoding.beam.word_model import UNKNOWN
from ds2_jax.decoding.ngram.language_model import LanguageModel
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


def make_vocabulary(model: LanguageModel, alphabet: Alphabet, name: str, hot: Iterable[str] = ()) -> Vocabulary:
    """Spells the words of a language model; what the alphabet cannot spell is counted on stderr.

    Args:
        model: its words are numbered as in its vocabulary. Of words that are spelt alike, the most frequent counts.
        alphabet: what spells them, after its rules of case, removal and composition. Where it has no space, only words
            of one character can be spelt.
        name: of the language model's file.
        hot: words that count as known though the model need not know them, normalised.

    Returns:
        The words, sorted by their labels.

    Raises:
        InputError: none of the model's words can be spelt.
    """
    characters = set(alphabet.characters) - {" "}
    longest = math.inf if " " in alphabet.characters else 1
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
            f"{name} must hold words of the alphabet {shorten(repr(alphabet.characters))}, got another alphabet: "
            f"{shorten(repr(left_out[:5]))}. Give a language model of the language that the run was trained on."
        )
    if left_out:
        logger.warning(
            f"{name}: {len(left_out)} of {len(model.vocabulary)} words cannot be spelt with the alphabet and so not be "
            f"recognised: {shorten(', '.join(left_out[:5]))}"
        )
    for word in hot:
        spelt.setdefault(word, UNKNOWN)
    return _sorted(spelt, alphabet)


def _log10(model: LanguageModel, word: str) -> float:
    """Of a word behind an unknown one, which tells nothing about it."""
    return model.next_word(model.next_word(model.begin_state, "<unk>")[1], word)[0]


def empty_vocabulary() -> Vocabulary:
    """Of no words."""
    return Vocabulary(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))


def _sorted(spelt: Mapping[str, int], alphabet: Alphabet) -> Vocabulary:
    # Where the code points of characters are their labels, words sort by their labels.
    table = {ord(character): label for label, character in enumerate(alphabet.characters, start=1)}
    words = sorted((text.translate(table), number) for text, number in spelt.items())
    labels = np.array([ord(label) for word, _ in words for label in word], np.int32)
    starts = np.cumsum([0] + [len(word) for word, _ in words], dtype=np.int64)
    return Vocabulary(labels, starts, np.array([number for _, number in words], np.int64))

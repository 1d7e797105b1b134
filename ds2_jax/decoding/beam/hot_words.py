"""Hot words: words and phrases to recognise more easily, as an automaton over labels."""

from collections.abc import Mapping

import numpy as np

from ds2_jax.decoding.beam.arrays import SPACE, HotWords
from ds2_jax.decoding.options import LARGEST_WEIGHT
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

Letters = tuple[int, ...]
"""The characters of a word, by their places in the alphabet, counted from 1."""


def spell(hot_words: Mapping[str, float], alphabet: Alphabet) -> dict[Letters, float]:
    """Spells hot words, each with its boost.

    Raises:
        InputError: a word is empty, has the same letters as another one, needs characters that the alphabet lacks, or
            has a boost outside -LARGEST_WEIGHT to LARGEST_WEIGHT.
    """
    spelt: dict[Letters, float] = {}
    for word, boost in hot_words.items():
        rule = f"have a boost of {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g} nats for {word!r}"
        require(abs(boost) <= LARGEST_WEIGHT, "--hot-word", rule, boost)
        require(bool(alphabet.normalise(word)), "--hot-word", "name a word", word)
        if unknown := alphabet.unknown(word):
            raise InputError(
                f"--hot-word must use the alphabet {alphabet.characters!r}, got {unknown} in {word!r}. "
                "The model cannot write these characters; spell the word without them."
            )
        letters = tuple(alphabet.spell(word))
        require(letters not in spelt, "--hot-word", "name each word once", word, "Keep one boost.")
        spelt[letters] = float(boost)
    return spelt


def automaton(spelt: Mapping[Letters, float], alphabet: Alphabet) -> HotWords:
    """Builds the automaton that follows hot words along a prefix.

    The state is the longest suffix of the prefix that starts at a word boundary and begins a hot word or phrase.
    Shorter suffixes with this property are suffixes of the longest. A partial hot word earns a positive boost in
    proportion to its letters, and keeps all of it when the word is complete. A negative boost counts only when the word
    is complete.

    Args:
        spelt: letters and boosts of words and phrases.
        alphabet: its space separates words. If it has no space, each character is a word.

    Returns:
        The automaton. It starts in state 0. State 1 is the inside of a word that is not hot.
    """
    space = alphabet.characters.find(" ") + 1
    shares: dict[Letters, float] = {(): 0.0}  # the boost that each beginning earns
    following: dict[Letters, set[int]] = {}
    for word, boost in spelt.items():
        for size in range(1, len(word) + 1):
            part = word[:size]
            shares[part] = max(shares.get(part, 0.0), boost * size / len(word))
            following.setdefault(part[:-1], set()).add(part[-1])
    parts = sorted(shares)  # the empty one first
    states = {part: state if state == 0 else state + 1 for state, part in enumerate(parts)}
    transitions = np.ones((len(parts) + 1, len(alphabet.characters) + 1), np.int32)
    held, awards = np.zeros(len(parts) + 1), np.zeros(len(parts) + 1)
    if not space:
        transitions[:] = 0
    transitions[:, SPACE] = 0
    for part, state in states.items():
        starts = [0, *(i + 1 for i, letter in enumerate(part) if letter == space)] if space else range(len(part) + 1)
        ends = [part[start:] for start in starts if part[start:] in shares]  # the longest first
        awards[state] = sum(spelt.get(end, 0.0) for end in ends)
        held[state] = max(shares[end] for end in ends)
        for end in reversed(ends):
            for letter in following.get(end, ()):
                transitions[state, SPACE if letter == space else letter] = states[(*end, letter)]
        if space and part and part[-1] == space:
            transitions[state, SPACE] = state  # a second space changes nothing
    if space:  # a label that is a space may be looked up like a letter
        transitions[:, space] = transitions[:, SPACE]
    return HotWords(transitions, held, awards)

"""The automaton of hot words follows its definition, and hot words change a search as documented."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds2_jax.decoding.beam.arrays import SPACE
from ds2_jax.decoding.beam.hot_words import automaton, spell
from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.beam_models import UNPRUNED, ToyModel, by_words, language_score, random_log_probs, sums_over_paths, words_of

ALPHABET, SPACELESS = Alphabet("AB "), Alphabet("ABC")
MODEL = ToyModel("A", "AB", "BA")
WITH_MODEL = dataclasses.replace(UNPRUNED, lm=Path("model.arpa"), alpha=0.7, beta=0.4, unknown_penalty=2.0)

words = st.text("AB", min_size=1, max_size=3)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)
boosts = st.floats(-4, 4).map(lambda boost: round(boost, 2))


def given_as(hot: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{word}={boost}" for word, boost in hot.items())


def occurrences(text: tuple[str, ...], phrase: tuple[str, ...]) -> int:
    return sum(text[i : i + len(phrase)] == phrase for i in range(len(text) - len(phrase) + 1))


def follow(hot: dict[str, float], alphabet: Alphabet, labels: list[int]) -> tuple[float, float]:
    """Returns a prefix's boosts for complete words, and its share for words that are not complete."""
    states = automaton(spell(hot, alphabet), alphabet)
    space = alphabet.characters.find(" ") + 1
    state, total, inside = 0, 0.0, False
    for label in labels:
        if inside and (label == space or not space):
            total += states.awards[state]
        state, inside = int(states.transitions[state, SPACE if label == space else label]), label != space
    return total + (states.awards[state] if inside else 0.0), float(states.credits[state])


@given(st.dictionaries(phrases, boosts, max_size=5), st.lists(st.integers(1, 3), max_size=12))
@example({"A B": 1.0}, [1, 3, 3, 2])  # a second space inside a phrase
def test_a_text_has_the_boost_of_each_occurrence(hot: dict[str, float], labels: list[int]) -> None:
    text = words_of(labels, ALPHABET)
    expected = sum(boost * occurrences(text, tuple(phrase.split())) for phrase, boost in hot.items())
    assert follow(hot, ALPHABET, labels)[0] == pytest.approx(expected)


@given(st.dictionaries(words, boosts, max_size=5), st.lists(st.integers(1, 3), max_size=10))
def test_without_spaces_words_are_found_anywhere(hot: dict[str, float], labels: list[int]) -> None:
    text = words_of(labels, SPACELESS)
    expected = sum(boost * occurrences(text, tuple(word)) for word, boost in hot.items())
    assert follow(hot, SPACELESS, labels)[0] == pytest.approx(expected)


@given(st.dictionaries(phrases, boosts, max_size=5), st.lists(st.integers(1, 3), max_size=12))
@example({"B AB": 0.1, "A": 4.0}, [2, 3, 1])  # the shorter of two beginnings earns more
def test_a_prefix_holds_the_largest_share_of_what_it_has_begun(hot: dict[str, float], labels: list[int]) -> None:
    text = " ".join(ALPHABET.decode(labels).split(" "))
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.lstrip(" ")
    starts = [0] + [i + 1 for i, character in enumerate(text) if character == " "]
    shares = [
        boost * len(text[start:]) / len(phrase)
        for start in starts
        for phrase, boost in hot.items()
        if phrase.startswith(text[start:])
    ]
    assert follow(hot, ALPHABET, labels)[1] == pytest.approx(max([0.0, *shares]))


@given(
    st.integers(0, 5),
    st.integers(0, 10_000),
    st.dictionaries(words, boosts, max_size=3),
    st.sampled_from([None, MODEL]),
)
def test_a_search_adds_the_boosts(n: int, seed: int, hot: dict[str, float], model: ToyModel | None) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed)
    expected = sums_over_paths(log_probs, ALPHABET)
    found = by_words(
        BeamSearch(ALPHABET, dataclasses.replace(WITH_MODEL, hot_word=given_as(hot)), model)(log_probs, 10_000),
        ALPHABET,
    )
    assert found.keys() == expected.keys()
    for text, hypothesis in found.items():
        boost = sum(hot.get(word, 0.0) for word in text)
        language = language_score(text, model, WITH_MODEL, hot) if model else boost
        assert hypothesis.log_prob == pytest.approx(expected[text], abs=1e-9)
        assert hypothesis.score - hypothesis.log_prob == pytest.approx(language, abs=1e-9)


def spelling(*frames: dict[int, float]) -> np.ndarray:
    """Makes log-probabilities from label: probability for each frame. Blank has the rest."""
    rows = np.full((len(frames), ALPHABET.size), 1e-6)
    for row, frame in zip(rows, frames, strict=True):
        for label, probability in frame.items():
            row[label] = probability
        row[0] = 1 - row[1:].sum()
    return np.log(rows).astype(np.float32)


def test_a_hot_word_settles_what_is_unclear() -> None:
    a, b = 1, 2
    log_probs = spelling({a: 0.98}, {}, {a: 0.55, b: 0.42}, {})
    (plain,) = BeamSearch(ALPHABET, DecodingOptions())(log_probs)
    (hot,) = BeamSearch(ALPHABET, DecodingOptions(hot_word=given_as({"AB": 1.0})))(log_probs)
    assert (plain.labels, hot.labels) == ([a, a], [a, b])
    (cold,) = BeamSearch(ALPHABET, DecodingOptions(hot_word=given_as({"AA": -1.0})))(log_probs)
    assert cold.labels == [a, b]


def test_a_share_of_the_boost_carries_a_word_through_a_narrow_search() -> None:
    a, b = 1, 2
    log_probs = spelling({a: 0.35, b: 0.6}, {}, {a: 0.35, b: 0.6}, {}, {a: 0.35, b: 0.6})
    narrow = DecodingOptions(beam_width=1)
    (found,) = BeamSearch(ALPHABET, dataclasses.replace(narrow, hot_word=given_as({"ABA": 3.0})))(log_probs)
    assert found.labels == [a, b, a]
    (found,) = BeamSearch(ALPHABET, dataclasses.replace(narrow, hot_word=given_as({"ABA": 1.0})))(
        log_probs
    )  # each label adds a third
    assert found.labels == [b, b, b]


def test_a_hot_word_is_known_to_a_closed_vocabulary() -> None:
    a, b = 1, 2
    log_probs = spelling({b: 0.99999}, {}, {b: 0.9, a: 0.05})
    options = DecodingOptions(lm=Path("model.arpa"), closed_vocabulary=True)
    (closed,) = BeamSearch(ALPHABET, options, MODEL)(log_probs)
    assert closed.labels == [b, a]
    (hot,) = BeamSearch(ALPHABET, dataclasses.replace(options, hot_word=("BB=0",)), MODEL)(log_probs)
    assert hot.labels == [b, b]


@pytest.mark.parametrize(
    ("hot", "message"),
    [
        (
            {"Ça": 1.0},
            "--hot-word must use the alphabet 'AB ', got ['Ç'] in 'Ça'. The model cannot write these characters; "
            "spell the word without them.",
        ),
        ({"AB": math.nan}, "--hot-word must have a boost of -1000 to 1000 nats for 'AB', got nan."),
        ({"AB": 1e308}, "--hot-word must have a boost of -1000 to 1000 nats for 'AB', got 1e+308."),
        ({"AB": math.inf}, "--hot-word must have a boost of -1000 to 1000 nats for 'AB', got inf."),
        ({" ": 1.0}, "--hot-word must name a word, got ' '."),
        ({"AB": 1.0, "ab": 2.0}, "--hot-word must name each word once, got 'ab'. Keep one boost."),
    ],
)
def test_bad_hot_words_are_named(hot: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        spell(hot, ALPHABET)
    assert str(error.value) == message

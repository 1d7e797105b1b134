"""hypothesis.py: labels on frames to words with times and confidences."""

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.alphabet import Alphabet
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Character, Hypothesis, make_hypothesis

ALPHABET = Alphabet("AB ")
BLANK, A, B, SPACE = range(4)

best_labels = st.lists(st.integers(0, ALPHABET.size - 1), max_size=12)


def read(row: list[int], seconds_per_frame: float = 0.25, certainty: float = 0.7) -> Hypothesis:
    rest = (1 - certainty) / (ALPHABET.size - 1)
    log_probs = np.log(np.where(np.eye(ALPHABET.size)[np.array(row, int)] == 1, certainty, rest)).astype(np.float32)
    return make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, seconds_per_frame)


def test_words_lie_between_their_outer_labels() -> None:
    row = [SPACE, A, A, BLANK, B, SPACE, BLANK, SPACE, BLANK, B, BLANK, SPACE]
    reading = read(row, seconds_per_frame=0.5)
    assert reading.text == "AB B"
    assert [(word.text, word.start, word.end) for word in reading.words] == [("AB", 0.5, 2.5), ("B", 4.5, 5.0)]
    assert reading.words[0].characters == (Character("A", 0.5, 1.5), Character("B", 2.0, 2.5))


def test_silence_has_no_words() -> None:
    for row in ([], [BLANK, SPACE, BLANK]):
        reading = read(row)
        assert (reading.text, reading.words, reading.confidence) == ("", (), 1.0)


def test_confidence_is_that_of_the_least_certain_label_in_its_best_frame() -> None:
    probs = np.array([[0.1, 0.8, 0.1, 0], [0.1, 0.9, 0, 0], [0.4, 0, 0.6, 0], [0.1, 0, 0, 0.9], [0.3, 0.7, 0, 0]])
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs).astype(np.float32)
    reading = make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, 0.02)
    np.testing.assert_allclose([word.confidence for word in reading.words], [0.6, 0.7], rtol=1e-6)
    np.testing.assert_allclose(reading.confidence, 0.6, rtol=1e-6)
    np.testing.assert_allclose(reading.score, math.log(0.8 * 0.9 * 0.6 * 0.9 * 0.7), rtol=1e-6)


@given(best_labels)
def test_text_is_the_words_of_the_labels(row: list[int]) -> None:
    reading = read(row)
    collapsed = [label for label, _ in itertools.groupby(row) if label != BLANK]
    assert reading.text == " ".join(word.text for word in reading.words)
    assert reading.text.split() == ALPHABET.decode(collapsed).split()
    assert all(word.text == "".join(each.text for each in word.characters) for word in reading.words)


@given(best_labels)
def test_times_rise_within_the_utterance(row: list[int]) -> None:
    characters = [each for word in read(row).words for each in word.characters]
    times = [time for each in characters for time in (each.start, each.end)]
    assert all(each.start < each.end for each in characters)
    assert times == sorted(times)
    assert all(0 <= time <= 0.25 * len(row) for time in times)

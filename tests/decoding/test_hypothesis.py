"""Labels on frames become words with times and confidences."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Character, Hypothesis, make_hypothesis
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import Pieces

ALPHABET = Alphabet("AB ")
BLANK, A, B, SPACE = range(4)

best_labels = st.lists(st.integers(0, ALPHABET.size - 1), max_size=12)


offsets = st.floats(-1, 1)


def read(
    row: list[int],
    seconds_per_frame: float = 0.25,
    calibration: Calibration = UNCALIBRATED,
    duration: float | None = None,
) -> Hypothesis:
    log_probs = np.log(np.where(np.eye(ALPHABET.size)[np.array(row, int)] == 1, 0.7, 0.1)).astype(np.float32)
    return make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, seconds_per_frame, calibration, duration)


def test_words_lie_between_their_outer_labels() -> None:
    row = [SPACE, A, A, BLANK, B, SPACE, BLANK, SPACE, BLANK, B, BLANK, SPACE]
    reading = read(row, seconds_per_frame=0.5)
    assert reading.text == "AB B"
    assert [(word.text, word.start, word.end) for word in reading.words] == [("AB", 0.5, 2.5), ("B", 4.5, 5.0)]
    assert reading.words[0].characters == (Character("A", 0.5, 1.5), Character("B", 2.0, 2.5))


def test_characters_of_a_piece_share_its_time_and_words_have_the_spaces_beside_them() -> None:
    alphabet = Alphabet("AB ", pieces=Pieces("bpe", (" ", "A", "B", " AB", "BA"), (-1.0, -2.0, -3.0, -4.0, -5.0)))
    row = [4, 0, 5, 0, 4, 1, 2, 1, 4]  # ▁AB BA | ▁AB | ▁ A ▁ | ▁AB
    probs = np.where(np.eye(alphabet.size)[row] == 1, 0.5, 0.1)
    probs[[5, 7], 1] = [0.9, 0.8]
    log_probs = np.log(probs).astype(np.float32)
    reading = make_hypothesis(greedy_decode(log_probs), log_probs, alphabet, 0.5)
    assert reading.text == "ABBA AB A AB"
    assert reading.words[0].characters == (
        Character("A", 0.0, 0.25),
        Character("B", 0.25, 0.5),
        Character("B", 1.0, 1.25),
        Character("A", 1.25, 1.5),
    )
    sums = probs.sum(axis=1)
    spaces, letter = [0.9 / sums[5], 0.8 / sums[7]], 0.5
    expected = [letter**2, letter * spaces[0], letter * spaces[0] * spaces[1], letter * spaces[1]]
    np.testing.assert_allclose([word.confidence for word in reading.words], expected, rtol=1e-6)


def test_silence_has_no_words() -> None:
    for row in ([], [BLANK, SPACE, BLANK]):
        reading = read(row)
        assert (reading.text, reading.words) == ("", ())


def test_confidence_in_silence_is_that_of_no_letter_in_the_least_sure_frame() -> None:
    assert read([]).confidence == 1.0
    probs = np.array([[0.9, 0.05, 0.05, 0], [0.4, 0.3, 0.1, 0.2], [0.2, 0.1, 0.1, 0.6]])
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs).astype(np.float32)
    reading = make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, 0.02)
    assert reading.text == ""
    np.testing.assert_allclose(reading.confidence, 0.6, rtol=1e-6)
    cooler = make_hypothesis([], log_probs, ALPHABET, 0.02, Calibration(0.5))
    np.testing.assert_allclose(cooler.confidence, (0.4**2 + 0.2**2) / (0.4**2 + 0.3**2 + 0.1**2 + 0.2**2), rtol=1e-6)


def test_confidence_is_the_product_of_the_labels_and_the_spaces_beside_them() -> None:
    probs = np.array([[0.1, 0.8, 0.1, 0], [0.1, 0.9, 0, 0], [0.4, 0, 0.6, 0], [0.1, 0, 0, 0.9], [0.3, 0.7, 0, 0]])
    outer = np.array([[0.5, 0, 0, 0.5 + 1e-6]])  # spaces at the ends are ignored
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.concatenate([outer, probs, outer])).astype(np.float32)
    reading = make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, 0.02)
    np.testing.assert_allclose([word.confidence for word in reading.words], [0.9 * 0.6 * 0.9, 0.9 * 0.7], rtol=1e-6)
    np.testing.assert_allclose(reading.confidence, 0.9 * 0.6 * 0.9 * 0.7, rtol=1e-6)
    np.testing.assert_allclose(reading.score, math.log(0.5**2 * 0.8 * 0.9 * 0.6 * 0.9 * 0.7), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature: float) -> None:
    log_probs = np.log(np.array([[0.2, 0.6, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]], np.float32))
    reading = make_hypothesis(greedy_decode(log_probs), log_probs, ALPHABET, 0.02, Calibration(temperature))
    powers = np.array([0.2, 0.6, 0.1, 0.1]) ** (1 / temperature)
    assert reading.text == "A"
    np.testing.assert_allclose(reading.words[0].confidence, powers[1] / powers.sum(), rtol=1e-6)


def test_offsets_move_starts_and_ends_and_neighbours_meet_in_the_middle() -> None:
    row = [BLANK, BLANK, BLANK, A, B, BLANK, BLANK, BLANK]
    reading = read(row, seconds_per_frame=1.0, calibration=Calibration(start_offset=-0.5, end_offset=0.25))
    assert reading.words[0].characters == (Character("A", 2.5, 3.875), Character("B", 3.875, 5.25))
    assert reading.words[0][1:3] == (2.5, 5.25)


def test_offsets_stop_at_the_ends_of_the_recording() -> None:
    early, late = (read([A, B], 0.04, Calibration(1.0, offset, offset)) for offset in (-1.0, 1.0))
    assert [each[1:] for each in early.words[0].characters] == [(0.0, 0.01), (0.01, 0.02)]
    np.testing.assert_allclose([each[1:] for each in late.words[0].characters], [(0.06, 0.07), (0.07, 0.08)])


@given(best_labels)
def test_text_is_the_words_of_the_labels(row: list[int]) -> None:
    reading = read(row)
    collapsed = [label for label, _ in itertools.groupby(row) if label != BLANK]
    assert reading.text == " ".join(word.text for word in reading.words)
    assert reading.text.split() == ALPHABET.decode(collapsed).split()
    assert all(word.text == "".join(each.text for each in word.characters) for word in reading.words)


@given(best_labels, offsets, offsets, st.floats(1e-3, 1))
def test_times_rise_within_the_recording(
    row: list[int], start_offset: float, end_offset: float, last_frame: float
) -> None:
    duration = 0.25 * (len(row) - 1 + last_frame) if row else 0.0
    reading = read(row, calibration=Calibration(2.0, start_offset, end_offset), duration=duration)
    characters = [each for word in reading.words for each in word.characters]
    times = [time for each in characters for time in (each.start, each.end)]
    assert all(each.start < each.end for each in characters)
    assert times == sorted(times)
    assert all(0 <= time <= duration for time in times)


@given(best_labels, st.sampled_from([0.25, 0.7, 4.0]))
def test_calibration_never_changes_the_transcript(row: list[int], temperature: float) -> None:
    plain, calibrated = read(row), read(row, calibration=Calibration(temperature, -0.1, 0.1))
    assert (plain.text, plain.score) == (calibrated.text, calibrated.score)
    assert all(0 <= word.confidence <= 1 for word in calibrated.words)
    assert 0 <= calibrated.confidence <= min((word.confidence for word in calibrated.words), default=1)

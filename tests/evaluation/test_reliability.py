"""Measures of confidences, against definitions and known cases."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.evaluation.error_rates import word_errors
from ds2_jax.evaluation.reliability import (
    Bin,
    Reliability,
    area_under_curve,
    expected_calibration_error,
    reliability,
    reliability_bins,
    right_words,
)

said = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.999, 1.0]), st.booleans()), max_size=30)
sentences = st.lists(st.sampled_from("A B C".split()), max_size=6).map(" ".join)


def columns(rows: list[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [confidence for confidence, _ in rows], [right for _, right in rows]


def test_bins_by_hand() -> None:
    bins = reliability_bins([0.0, 0.05, 0.1, 0.95, 1.0, 1.0], [False, True, True, True, True, False])
    assert bins == [
        Bin(0.0, 0.1, 2, 0.025, 0.5),
        Bin(0.1, 0.2, 1, 0.1, 1.0),
        Bin(0.9, 1.0, 3, 2.95 / 3, 2 / 3),
    ]


def test_calibration_error_by_hand() -> None:
    error = expected_calibration_error([0.8, 0.8, 0.8, 0.8, 0.2], [True, True, False, False, False])
    assert error == pytest.approx((4 * 0.3 + 1 * 0.2) / 5)
    assert expected_calibration_error([0.4, 0.8], [True, False], num_bins=1) == pytest.approx(0.1)
    assert expected_calibration_error([], []) == 0


def test_confidences_that_keep_their_word_have_no_error() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(size=200_000)
    right = generator.uniform(size=len(confidences)) < confidences
    assert expected_calibration_error(confidences.tolist(), right.tolist()) < 0.005
    assert area_under_curve(confidences.tolist(), right.tolist()) == pytest.approx(5 / 6, abs=0.005)  # by integration


@given(said)
def test_area_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool]]) -> None:
    right = [confidence for confidence, correct in rows if correct]
    wrong = [confidence for confidence, correct in rows if not correct]
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(right, wrong)]
    area = area_under_curve(*columns(rows))
    assert area is None if not pairs else math.isclose(area or 0.0, sum(pairs) / len(pairs), abs_tol=1e-12)


@given(said)
def test_reliability_gathers_them(rows: list[tuple[float, bool]]) -> None:
    found = reliability(*columns(rows))
    if not rows:
        assert found is None
    else:
        error, area = expected_calibration_error(*columns(rows)), area_under_curve(*columns(rows))
        assert found == Reliability(len(rows), sum(right for _, right in rows) / len(rows), error, area)


def test_reliability_is_told() -> None:
    assert str(reliability([0.5, 0.9], [False, True])) == (
        "expected calibration error 0.300, area under the ROC curve 1.000, 50.0% of 2 right"
    )
    assert "area under the ROC curve undefined, 100.0% of 1 right" in str(reliability([0.5], [True]))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "right"),
    [
        ("GO LEFT", "GO LEFT", [True, True]),
        ("GO LEFT NOW", "GO NOW", [True, True]),
        ("GO LEFT", "GO TO LEFT", [True, False, True]),
        ("GO LEFT", "NO LEFT", [False, True]),
        ("", "GO", [False]),
        ("GO", "", []),
    ],
)
def test_right_words_by_hand(reference: str, hypothesis: str, right: list[bool]) -> None:
    assert right_words(reference, hypothesis) == right


@given(sentences, sentences)
def test_right_words_agree_with_the_error_rate(reference: str, hypothesis: str) -> None:
    right = right_words(reference, hypothesis)
    errors = word_errors(reference, hypothesis)
    assert len(right) == len(hypothesis.split())
    assert right.count(False) == errors.substitutions + errors.insertions

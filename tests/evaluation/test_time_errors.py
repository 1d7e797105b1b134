"""Recognised times, compared with true ones."""

from pathlib import Path

import numpy as np

from ds2_jax.data.manifest import TimedWord, Utterance
from ds2_jax.evaluation.time_errors import TimeErrors, gather, time_errors

SAID = Utterance(
    Path("a.wav"),
    3.0,
    "go left  now",
    "a",
    words=(TimedWord("go", 0, 1), TimedWord("left", 1, 2), TimedWord("now", 2, 3)),
)


def test_right_words_are_compared_with_their_own_times() -> None:
    spans = [(0.25, 1.0), (1.0, 1.5), (2.0, 3.25)]
    assert time_errors(SAID, "GO LEFT NOW", "GO UP NOW", spans) == [(0.25, 0.0), (0.0, 0.25)]
    assert time_errors(SAID, "GO LEFT NOW", "LEFT", [(1.5, 1.75)]) == [(0.5, -0.25)]
    assert time_errors(SAID, "GO LEFT NOW", "", []) == []


def test_times_that_are_not_known_or_of_other_words_are_not_compared() -> None:
    unknown = Utterance(Path("a.wav"), 3.0, "GO", "a")
    assert time_errors(unknown, "GO", "GO", [(0, 1)]) == []
    assert time_errors(SAID, "GO LEFT", "GO LEFT", [(0, 1), (1, 2)]) == []  # normalising removed a word


def test_errors_are_told_by_their_size() -> None:
    assert gather([]) is None
    errors = gather([(0.1, 0.0), (-0.1, 0.0), (-0.4, 0.02)])
    assert isinstance(errors, TimeErrors)
    np.testing.assert_array_equal(errors.starts, [0.1, -0.1, -0.4])
    assert str(errors) == (
        "starts 200 ms off in the mean (100 in the median, 95 % within 370), "
        "ends 7 ms off in the mean (0 in the median, 95 % within 18), over 3 right words"
    )

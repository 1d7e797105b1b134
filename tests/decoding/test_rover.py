"""Recognisers vote for each word."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.hypothesis import Character, Hypothesis, Word
from ds2_jax.decoding.rover import rover


def reading(text: str, confidences: Sequence[float] | float = 0.9, start: float = 0.0) -> Hypothesis:
    words = []
    said = text.split()
    sure = [confidences] * len(said) if isinstance(confidences, float) else confidences
    for place, (word, confidence) in enumerate(zip(said, sure, strict=True)):
        begin = start + place
        words.append(Word(word, begin, begin + 0.8, confidence, (Character(word, begin, begin + 0.8),)))
    return Hypothesis(text, tuple(words), 0.5, -1.0)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c", "a x c", "a b c"], "a b c"),
        (["a b c", "a c", "a c"], "a c"),
        (["a c", "a b c", "a b c"], "a b c"),
        (["a b", "b", "b c"], "b"),
        (["x a b c", "a b c y", "a b c"], "a b c"),
        (["a x", "a y", "a z"], "a x"),  # a tie goes to the first
        (["", "a b", "a b"], "a b"),
        (["", "", "a"], ""),
        (["a"], "a"),
    ],
)
def test_the_majority_wins(texts: list[str], expected: str) -> None:
    combined = rover([reading(text) for text in texts])
    assert combined.text == expected == " ".join(word.text for word in combined.words)


def test_confidence_decides_between_two() -> None:
    sure, unsure = reading("a x", [0.9, 0.9]), reading("a y", [0.9, 0.3])
    assert rover([unsure, sure]).text == rover([sure, unsure]).text == "a x"
    combined = rover([unsure, sure])
    assert [word.confidence for word in combined.words] == pytest.approx([0.9, 0.45])
    assert combined.confidence == pytest.approx(0.9 * 0.45)
    assert (combined.words[1].start, combined.words[1].end) == (1.0, 1.8)
    assert rover([reading("a b", [0.9, 0.3]), reading("a", 0.8)]).text == "a"  # 0.8 for nothing beside 0.3 for b


def test_words_of_several_recognisers_do_not_overlap() -> None:
    late = reading("a x c", [0.9, 0.1, 0.9], start=0.5)
    early = reading("a b c", [0.1, 0.9, 0.9], start=-1.4)
    combined = rover([reading("a x c", [0.9, 0.1, 0.1], start=0.5), early, late])
    assert combined.text == "a b c"  # b is the early one's
    times = [time for word in combined.words for time in (word.start, word.end)]
    assert times == sorted(times)
    for word in combined.words:
        assert word.start <= word.characters[0].start <= word.characters[-1].end <= word.end


TEXTS = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)


@given(TEXTS, st.integers(1, 4))
def test_those_who_agree_are_heard(text: str, count: int) -> None:
    combined = rover([reading(text)] * count)
    assert combined.text == text
    assert [(word.start, word.end) for word in combined.words] == [(n, n + 0.8) for n in range(len(text.split()))]
    assert [word.confidence for word in combined.words] == pytest.approx([0.9] * len(combined.words))


@given(TEXTS, TEXTS, TEXTS)
def test_every_word_was_heard_by_one(first: str, second: str, third: str) -> None:
    combined = rover([reading(first), reading(second), reading(third)])
    assert set(combined.text.split()) <= {*first.split(), *second.split(), *third.split()}
    if first == second:
        assert combined.text == first

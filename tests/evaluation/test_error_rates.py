import functools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors, word_errors

texts = st.text("AB ", max_size=7)


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Computes Levenshtein's distance by its recursive definition."""

    @functools.cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        changed = reference[i - 1] != hypothesis[j - 1]
        return min(between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + changed)

    return between(len(reference), len(hypothesis))


def check(count: ErrorCount, reference: Sequence[str], hypothesis: Sequence[str]) -> None:
    assert count.edits == distance(reference, hypothesis)
    assert count.reference_length == len(reference)
    matches = len(reference) - count.substitutions - count.deletions
    assert matches >= 0
    assert matches + count.substitutions + count.insertions == len(hypothesis)


@given(texts, texts)
def test_word_errors_are_the_edit_distance_of_the_words(reference: str, hypothesis: str) -> None:
    check(word_errors(reference, hypothesis), reference.split(), hypothesis.split())


@given(texts, texts)
def test_char_errors_without_spaces_ignore_them(reference: str, hypothesis: str) -> None:
    count = char_errors(reference, hypothesis, spaces=False)
    check(count, reference.replace(" ", ""), hypothesis.replace(" ", ""))


@given(texts, texts)
def test_char_errors_with_spaces_count_one_between_words(reference: str, hypothesis: str) -> None:
    count = char_errors(reference, hypothesis, spaces=True)
    check(count, " ".join(reference.split()), " ".join(hypothesis.split()))


def test_each_kind_of_edit_is_counted_as_itself() -> None:
    assert word_errors("SEVEN TWO NINE", "SEVEN FIVE NINE") == ErrorCount(substitutions=1, reference_length=3)
    assert word_errors("SEVEN TWO NINE", "SEVEN NINE") == ErrorCount(deletions=1, reference_length=3)
    assert word_errors("SEVEN TWO NINE", "SEVEN TWO TWO NINE") == ErrorCount(insertions=1, reference_length=3)
    assert char_errors("TWO TEN", "TWOTEN", spaces=True) == ErrorCount(deletions=1, reference_length=7)
    assert char_errors("TWO TEN", "TWOTEN", spaces=False) == ErrorCount(reference_length=6)


def test_words_are_compared_whole() -> None:
    assert word_errors("SEVENTEEN", "SEVEN TEEN") == ErrorCount(substitutions=1, insertions=1, reference_length=1)


def test_corpus_rate_weighs_utterances_by_length() -> None:
    counts = [word_errors("A", "B"), word_errors("A B C", "A B C")]
    assert sum(counts, start=ErrorCount()).rate == pytest.approx(1 / 4)  # the mean of the rates would be 1 / 2


@given(texts, texts, texts, texts)
def test_counts_add_up_field_by_field(a: str, b: str, c: str, d: str) -> None:
    first, second = word_errors(a, b), word_errors(c, d)
    total = first + second
    assert total.edits == first.edits + second.edits
    assert total.reference_length == len(a.split()) + len(c.split())
    assert total.deletions == first.deletions + second.deletions
    assert total.insertions == first.insertions + second.insertions


def test_rate_of_an_empty_reference_is_finite() -> None:
    assert word_errors("", "").rate == 0
    assert word_errors("", "ONE TWO").rate == 2
    assert ErrorCount().rate == 0

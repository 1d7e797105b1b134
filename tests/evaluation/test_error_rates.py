import functools
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors, word_errors
from tests.conftest import NO_SCTK

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


def drawn_pairs(count: int) -> list[tuple[str, str]]:
    """Draws texts of up to a dozen words, and changed copies of them: some nearly right, some with little in common."""
    generator = np.random.default_rng(0)
    vocabulary = "ab bc cd de ea fo go hi".split()
    pairs = []
    for _ in range(count):
        said = list(generator.choice(vocabulary, generator.integers(1, 13)))
        wrong, heard = generator.uniform(0, 0.8), []
        for word in said:
            kind = generator.random() / wrong
            heard += [] if kind < 0.3 else [generator.choice(vocabulary)] if kind < 0.7 else [word]
            heard += [generator.choice(vocabulary)] if 0.7 < kind < 1 else []
        pairs.append((" ".join(said), " ".join(heard)))
    return pairs


def test_counts_are_those_of_jiwer() -> None:
    for said, heard in drawn_pairs(1000):
        theirs = jiwer.process_words(said, heard)
        expected = ErrorCount(theirs.substitutions, theirs.deletions, theirs.insertions, len(said.split()))
        assert word_errors(said, heard) == expected
        characters = jiwer.process_characters(said, heard)
        edits = characters.substitutions, characters.deletions, characters.insertions
        assert char_errors(said, heard, spaces=True) == ErrorCount(*edits, len(said))


def test_nist_counts_are_those_of_sclite(tmp_path: Path) -> None:
    if shutil.which("sctk") is None:
        pytest.skip(NO_SCTK)
    pairs = drawn_pairs(1000)
    for place, name in enumerate(("said", "heard")):
        lines = (f"{pair[place]} (anna_{number:04d})\n" for number, pair in enumerate(pairs))
        (tmp_path / name).write_text("".join(lines))
    words = ["sctk", "sclite", "-r", f"{tmp_path}/said", "trn", "-h", f"{tmp_path}/heard", "trn", "-i", "rm"]
    listed = subprocess.run([*words, "-o", "pra", "stdout"], capture_output=True, text=True, check=True).stdout
    numbers = [int(each) for each in re.findall(r"id: \(anna_(\d+)\)", listed)]
    scores = [
        [int(each) for each in found.split()] for found in re.findall(r"Scores: \(#C #S #D #I\) ([\d ]+)", listed)
    ]
    assert sorted(numbers) == list(range(1000))
    more = 0
    for number, (right, substituted, deleted, inserted) in zip(
        numbers, (map(int, each) for each in scores), strict=True
    ):
        counted = word_errors(*pairs[number], "nist")
        assert counted == ErrorCount(substituted, deleted, inserted, right + substituted + deleted)
        more += counted.edits > word_errors(*pairs[number]).edits
    assert more  # sclite does not always find the fewest edits

"""Words stand beside those that were recognised for them."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from ds2_jax.evaluation import word_alignment
from ds2_jax.evaluation.error_rates import ErrorCount, Weights, word_errors
from ds2_jax.evaluation.word_alignment import ALIKE, WordPair, align_words

TEXTS = st.lists(st.sampled_from(["A", "B", "C", "AB"]), max_size=7).map(" ".join)
SHORT_TEXTS = st.lists(st.sampled_from(["A", "AB", "ABC", "CBA"]), max_size=4).map(" ".join)


def counted(pairs: list[WordPair]) -> ErrorCount:
    kinds = [pair.kind for pair in pairs]
    substituted, deleted, inserted = map(kinds.count, ("substitution", "deletion", "insertion"))
    return ErrorCount(substituted, deleted, inserted, sum(bool(pair.reference) for pair in pairs))


def every_alignment(said: list[str], heard: list[str]) -> Iterator[list[WordPair]]:
    if not said and not heard:
        yield []
    if said and heard:
        yield from ([WordPair(said[0], heard[0]), *rest] for rest in every_alignment(said[1:], heard[1:]))
    if said:
        yield from ([WordPair(said[0], ""), *rest] for rest in every_alignment(said[1:], heard))
    if heard:
        yield from ([WordPair("", heard[0]), *rest] for rest in every_alignment(said, heard[1:]))


def likeness(pairs: list[WordPair]) -> int:
    shares = [Levenshtein.normalized_similarity(*pair) for pair in pairs if pair.kind == "substitution"]
    return sum(round(share * ALIKE) for share in shares)


def test_words_are_set_beside_each_other() -> None:
    pairs = align_words("SHOW ME THE FLIGHTS", "SHOE THE FLIGHTS NOW")
    assert pairs == [("SHOW", "SHOE"), ("ME", ""), ("THE", "THE"), ("FLIGHTS", "FLIGHTS"), ("", "NOW")]
    assert align_words("", "") == []
    assert align_words("ONE TWO", "") == [("ONE", ""), ("TWO", "")]
    assert align_words("ARRIVEDERCI", "ARIVEDEC CHI") == [("ARRIVEDERCI", "ARIVEDEC"), ("", "CHI")]
    assert align_words("ARRIVEDERCI", "CHI ARIVEDEC") == [("", "CHI"), ("ARRIVEDERCI", "ARIVEDEC")]


@pytest.mark.parametrize("weights", ["equal", "nist"])
@pytest.mark.parametrize("most_cells", [word_alignment.MOST_CELLS, 0])
def test_alignment_holds_both_texts_and_the_errors_that_are_counted(
    most_cells: int, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_alignment, "MOST_CELLS", most_cells)

    @given(TEXTS, TEXTS)
    def check(reference: str, hypothesis: str) -> None:
        pairs = align_words(reference, hypothesis, weights)
        assert " ".join(pair.reference for pair in pairs if pair.reference) == reference
        assert " ".join(pair.hypothesis for pair in pairs if pair.hypothesis) == hypothesis
        assert counted(pairs) == word_errors(reference, hypothesis, weights)

    check()


@given(SHORT_TEXTS, SHORT_TEXTS)
def test_no_alignment_with_as_many_edits_has_words_that_are_more_alike(reference: str, hypothesis: str) -> None:
    errors = word_errors(reference, hypothesis)
    others = every_alignment(reference.split(), hypothesis.split())
    most = max(likeness(pairs) for pairs in others if counted(pairs) == errors)
    assert likeness(align_words(reference, hypothesis)) == pytest.approx(most, abs=4)  # they are float32 shares

"""Beam search over labels that are pieces of words keeps the promises that it keeps for characters."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import Pieces
from tests.beam_models import (
    UNPRUNED,
    ToyModel,
    by_words,
    language_score,
    one_hot,
    random_log_probs,
    sums_over_paths,
    words_of,
)

TEXTS = (" ", "B", "A", " AB", "BA")
ALPHABET = Alphabet("AB ", pieces=Pieces("unigram", TEXTS, (-3.0, -2.0, -2.0, -1.0, -1.5)))
MODEL = ToyModel("A", "AB", "ABA", "BA", "BAB")
SETTINGS = dataclasses.replace(UNPRUNED, lm=Path("model.arpa"), alpha=0.7, beta=0.4, unknown_penalty=2.0)
lengths, seeds = st.integers(0, 4), st.integers(0, 10_000)


@given(lengths, seeds)
def test_every_text_has_the_sum_over_all_its_paths_and_divisions(n: int, seed: int) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed)
    expected = sums_over_paths(log_probs, ALPHABET)
    found = by_words(BeamSearch(ALPHABET, UNPRUNED)(log_probs, 10_000), ALPHABET)
    assert found.keys() == expected.keys()
    for words, hypothesis in found.items():
        assert hypothesis.score == hypothesis.log_prob == pytest.approx(expected[words], abs=1e-9)


@given(lengths, seeds, st.dictionaries(st.sampled_from(["A", "AB", "BAAB", "BB"]), st.sampled_from([-1.5, 2.5])))
def test_words_add_what_the_language_model_and_hot_words_say(n: int, seed: int, hot: dict[str, float]) -> None:
    options = dataclasses.replace(SETTINGS, hot_word=tuple(f"{word}={boost}" for word, boost in hot.items()))
    log_probs = random_log_probs(n, ALPHABET.size, seed)
    expected = sums_over_paths(log_probs, ALPHABET)
    found = by_words(BeamSearch(ALPHABET, options, MODEL)(log_probs, 10_000), ALPHABET)
    assert found.keys() == expected.keys()
    for words, hypothesis in found.items():
        assert hypothesis.log_prob == pytest.approx(expected[words], abs=1e-9)
        language = hypothesis.score - hypothesis.log_prob
        assert language == pytest.approx(language_score(words, MODEL, options, hot), abs=1e-9)


@given(lengths, seeds)
def test_a_closed_vocabulary_gives_its_words_and_no_others(n: int, seed: int) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed)
    allowed = {words for words in sums_over_paths(log_probs, ALPHABET) if set(words) <= set(MODEL.vocabulary)}
    search = BeamSearch(ALPHABET, dataclasses.replace(SETTINGS, closed_vocabulary=True), MODEL)
    assert by_words(search(log_probs, 10_000), ALPHABET).keys() == allowed


@pytest.mark.parametrize("boost", [0.0, 5.0])
def test_a_label_that_ends_a_good_word_is_not_pruned(boost: float) -> None:
    """It may look too unlikely before the word behind it has its score."""
    pieces = Pieces("unigram", (" ", "A", "B", " A", " B"), (-1.0,) * 5)
    alphabet = Alphabet("AB ", pieces=pieces)
    log_probs = np.log(np.array([[1e-9, 1e-9, 1e-9, 1e-9, 1, 1e-9], [1e-9, 1e-9, 1e-9, 0.9, 1e-9, 0.1]], np.float32))
    options = DecodingOptions(
        lm=SETTINGS.lm, alpha=0.0, beta=boost, unknown_penalty=0.0, beam_width=1, beam_threshold=1
    )
    best, *_ = BeamSearch(alphabet, options, ToyModel("A", "B"))(log_probs)
    assert words_of(best.labels, alphabet) == (("A", "B") if boost else ("AB",))


@given(st.integers(0, 40), seeds, st.integers(0, 40))
def test_reading_in_parts_changes_nothing(n: int, seed: int, cut: int) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed, 2.0)
    search = BeamSearch(ALPHABET, dataclasses.replace(SETTINGS, beam_width=8, beam_threshold=30.0), MODEL)
    progress = search.start()
    progress.read(log_probs[:cut])
    settled, num_settled = progress.best()
    progress.read(log_probs[cut:])
    found = progress.hypotheses(8)
    assert found == search(log_probs, 8)
    assert all(each.labels[:num_settled] == settled[:num_settled] for each in found)


@given(st.lists(st.integers(0, ALPHABET.size - 1), max_size=12))
def test_certain_outputs_give_their_text(labels: list[int]) -> None:
    hypothesis, *others = BeamSearch(ALPHABET, DecodingOptions())(one_hot(labels, ALPHABET.size).reshape(-1, 6), 5)
    said = [label for i, label in enumerate(labels) if label and (i == 0 or labels[i - 1] != label)]
    assert not others
    assert hypothesis.labels == said

"""Confidences from the probabilities of beam search's hypotheses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.beam.search import BeamSearch
from ds2_jax.decoding.confidence import posteriors, with_posteriors
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.text.alphabet import Alphabet

sentences = st.lists(st.sampled_from("A B C".split()), max_size=4).map(" ".join)


def reading(text: str, confidence: float = 0.5) -> Hypothesis:
    words = tuple(Word(word, i, i + 1, confidence, ()) for i, word in enumerate(text.split()))
    return Hypothesis(text, words, confidence, 0.0)


def test_posteriors_are_shares_of_the_probabilities() -> None:
    np.testing.assert_allclose(posteriors([-1e5, -1e5 + math.log(3)]), [0.25, 0.75])


def test_word_has_the_mass_of_the_readings_that_have_it_at_its_place() -> None:
    texts = ["GO LEFT NOW", "GO LIFT NOW", "LEFT NOW", "GO NOW"]
    best = with_posteriors(reading(texts[0]), texts, np.array([0.5, 0.25, 0.125, 0.125]))
    mass = [0.5 + 0.25 + 0.125, 0.5 + 0.125, 1.0]
    assert [word.confidence for word in best.words] == pytest.approx([(0.5 + each) / 2 for each in mass])
    assert best.confidence == pytest.approx((0.5 + 0.5) / 2)
    assert best.text == texts[0]


def test_readings_of_one_text_add_up() -> None:
    assert with_posteriors(reading("GO", 1.0), ["GO", "NO", "GO"], np.array([0.5, 0.25, 0.25])).confidence == 0.875
    assert with_posteriors(reading("", 1.0), [""], np.ones(1)) == reading("", 1.0)


@given(st.lists(sentences, min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_confidences_stay_probabilities_between_the_two(texts: list[str], seed: int, confidence: float) -> None:
    probabilities = posteriors(np.random.default_rng(seed).normal(0, 3, len(texts)).tolist())
    found = with_posteriors(reading(texts[0], confidence), texts, probabilities)
    own = probabilities[0]
    assert all((confidence + own) / 2 - 1e-9 <= word.confidence <= (confidence + 1) / 2 + 1e-9 for word in found.words)
    assert 0 <= found.confidence <= 1


def test_beam_search_confidences_know_of_its_other_readings() -> None:
    """One frame has 0.4 for A and 0.5 for B. The hypothesis A lowers the confidence of B."""
    alphabet = Alphabet("AB ")
    log_probs = np.log(
        np.array([[0.97, 0.01, 0.01, 0.01], [0.05, 0.4, 0.5, 0.05], [0.97, 0.01, 0.01, 0.01]], np.float32)
    )
    [best] = Decoder(alphabet, 0.02, search=BeamSearch(alphabet, DecodingOptions()))(log_probs)
    assert best.text == "B"
    assert best.words[0].confidence == pytest.approx(0.5, abs=0.03)
    several = Decoder(alphabet, 0.02, search=BeamSearch(alphabet, DecodingOptions(num_best=2)), num_best=2)(log_probs)
    assert [each.text for each in several] == ["B", "A"]
    assert several[0] == best
    assert several[1].words[0].confidence == pytest.approx(0.4, abs=0.03)

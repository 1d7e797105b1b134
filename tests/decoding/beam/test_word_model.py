"""Compiled scoring of many words equals scoring word by word."""

from pathlib import Path

import numpy as np
import pytest

from ds2_jax.decoding.beam.word_model import UNKNOWN, NGramWords, WordByWord, word_model
from ds2_jax.decoding.ngram.model import NGramModel, load
from tests.beam_models import ToyModel
from tests.decoding.test_decoder import ARPA


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NGramModel:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA.format(other="BA"))
    loaded = load(path)
    assert isinstance(loaded, NGramModel)
    return loaded


def test_both_ways_of_asking_give_the_same(model: NGramModel) -> None:
    fast, plain = word_model(model), WordByWord(model)
    assert isinstance(fast, NGramWords)
    states = np.array([fast.begin()])
    assert plain.begin() == states[0]
    words = np.array([UNKNOWN, *range(len(model.vocabulary))])
    for _ in range(3):  # all sequences of up to three words
        states, asked = np.repeat(states, len(words)), np.tile(words, len(states))
        scores, following = fast.score(states, asked)
        for ours, theirs in zip((scores, following), plain.score(states, asked), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        states = following
        np.testing.assert_array_equal(fast.end(states), plain.end(states))
    assert len(np.unique(fast.end(states))) > 1


def test_other_models_are_asked_word_by_word() -> None:
    model = ToyModel("A", "B")
    asked = word_model(model)
    scores, states = asked.score(np.array([0, 0]), np.array([1, UNKNOWN]))
    assert scores.tolist() == [model.log10["<s>", "B"], model.log10["<s>", "<unk>"]]
    assert states.tolist() == [2, 3]
    assert asked.end(states).tolist() == [model.log10["B", "</s>"], model.log10["<unk>", "</s>"]]

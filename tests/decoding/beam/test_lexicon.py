"""The words of a language model are encoded as labels of the alphabet."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.beam import kernel
from ds2_jax.decoding.beam.arrays import Vocabulary
from ds2_jax.decoding.beam.lexicon import make_vocabulary
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.beam_models import ToyModel

ALPHABET = Alphabet("'ABCÉ ")


def spelt(vocabulary: Vocabulary, alphabet: Alphabet) -> dict[str, int]:
    bounds = zip(vocabulary.starts, vocabulary.starts[1:], vocabulary.ids, strict=False)
    return {alphabet.decode(vocabulary.letters[low:high].tolist()): int(number) for low, high, number in bounds}


def test_words_are_normalised_and_sorted_by_their_labels(capsys: pytest.CaptureFixture[str]) -> None:
    model = ToyModel("ab", "b", "'a", "cafe\u0301".replace("f", ""), "a")
    vocabulary = make_vocabulary(model, ALPHABET, "model.arpa")
    assert spelt(vocabulary, ALPHABET) == {
        word.upper().replace("E\u0301", "É"): number for number, word in enumerate(model.vocabulary)
    }
    words = [vocabulary.letters[low:high].tolist() for low, high in itertools.pairwise(vocabulary.starts)]
    assert words == sorted(words)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_spelt_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model = ToyModel("AB", "X1", "naïve", "B")
    assert len(make_vocabulary(model, ALPHABET, "model.arpa").ids) == 2
    assert capsys.readouterr().err == (
        "model.arpa: 2 of 4 words cannot be recognised, because the alphabet cannot spell them: X1, naïve\n"
    )


def test_a_model_of_another_alphabet_is_an_error() -> None:
    with pytest.raises(InputError) as error:
        make_vocabulary(ToyModel("мир", "дом"), ALPHABET, "model.arpa")
    assert str(error.value) == (
        "model.arpa must hold words of the alphabet \"'ABCÉ \", got only other words: ['дом', 'мир']. "
        "Give a language model of the language that the run was trained on."
    )


def test_of_words_spelt_alike_the_more_frequent_counts() -> None:
    model = ToyModel("ab", "AB", "Ab")
    frequent = max(model.vocabulary, key=lambda word: model.log10["<unk>", word])
    assert spelt(make_vocabulary(model, ALPHABET, ""), ALPHABET) == {"AB": model.vocabulary.index(frequent)}


def test_without_spaces_words_are_characters(capsys: pytest.CaptureFixture[str]) -> None:
    model = ToyModel("A", "B", "AB")
    assert spelt(make_vocabulary(model, Alphabet("ABC"), "model.arpa"), Alphabet("ABC")) == {"A": 0, "B": 2}
    assert "1 of 3 words" in capsys.readouterr().err


def test_hot_words_are_known_without_a_number() -> None:
    vocabulary = make_vocabulary(ToyModel("AB"), ALPHABET, "", hot=["AB", "CAB"])
    assert spelt(vocabulary, ALPHABET) == {"AB": 0, "CAB": -1}


@given(st.sets(st.text("ABC", min_size=1, max_size=4), min_size=1, max_size=20), st.text("ABC", max_size=5))
def test_labels_narrow_the_words_to_those_that_begin_so(words: set[str], prefix: str) -> None:
    vocabulary = make_vocabulary(ToyModel(*words), ALPHABET, "")
    low, high = 0, len(words)
    for depth, label in enumerate(ALPHABET.encode(prefix)):
        bounds = low, high
        low = kernel._first_from(label, *bounds, depth, vocabulary)
        high = kernel._first_from(label + 1, *bounds, depth, vocabulary)
    numbers = np.sort(vocabulary.ids[low:high])
    model = ToyModel(*words)
    assert [model.vocabulary[number] for number in numbers] == sorted(w for w in words if w.startswith(prefix))

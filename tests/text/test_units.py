"""Pieces of words: divided as SentencePiece divides them, kept in the settings, labels of an alphabet."""

import io
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.config import DataConfig
from ds2_jax.config.settings import ENGLISH
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import CHARACTERS, Kind, Pieces, read_units

KINDS: list[Kind] = ["unigram", "bpe"]
SYLLABLES = ["BA", "TO", "RI", "NG", "E", "ST", "UN", "'S", "LE", "CH"]


def made_text() -> list[str]:
    """Draws sentences of words that share syllables."""
    rng = random.Random(0)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(300)]
    return [" ".join(rng.choices(words, k=8)) for _ in range(300)]


def made_model(kind: Kind, **changes: Any) -> bytes:
    written = io.BytesIO()
    options = {"normalization_rule_name": "identity", "required_chars": ENGLISH.replace(" ", "")} | changes
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(made_text()),
        model_writer=written,
        model_type=kind,
        vocab_size=80,
        character_coverage=1.0,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("units") / f"{request.param}.model"
    path.write_bytes(made_model(request.param))
    return path


def pieces_of(model: Path) -> Pieces:
    pieces = read_units(str(model))
    assert pieces is not None
    return pieces


def test_words_are_divided_as_sentencepiece_does(model: Path) -> None:
    pieces, library = pieces_of(model), sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert pieces.kind == model.stem
    rng = random.Random(1)
    unseen = ["".join(rng.choices(ENGLISH.replace(" ", ""), k=rng.randint(1, 9))) for _ in range(500)]
    for text in [*made_text(), *unseen]:
        assert [pieces.texts[i].replace(" ", "▁") for i in pieces.encode(text)] == library.encode(text, out_type=str)


def test_pieces_are_written_as_they_are_read(model: Path) -> None:
    pieces = pieces_of(model)
    assert read_units(str(pieces)) == pieces
    assert read_units(CHARACTERS) is None


def test_a_file_that_has_changed_is_read_again(model: Path, tmp_path: Path) -> None:
    other: Kind = "bpe" if model.stem == "unigram" else "unigram"
    path = tmp_path / "a.model"
    path.write_bytes(model.read_bytes())
    assert pieces_of(path).kind == model.stem
    path.write_bytes(made_model(other))
    assert pieces_of(path).kind == other


def test_a_model_that_divides_in_another_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "symbols.model"
    path.write_bytes(made_model("unigram", normalization_rule_name="nmt_nfkc_cf"))  # lower case
    with pytest.raises(InputError, match="must divide words by unigram or BPE and not change them"):
        read_units(str(path))


def test_labels_are_pieces_and_give_the_text_again(model: Path) -> None:
    alphabet = Alphabet.of(DataConfig(units=str(model)))
    assert alphabet.size == len(pieces_of(model).texts) + 1
    for text in made_text():
        labels = alphabet.encode(text.lower())
        assert alphabet.decode(labels) == f" {text}"
    assert sum(map(len, map(alphabet.encode, made_text()))) < sum(map(len, made_text()))
    assert alphabet.encode("") == []
    assert alphabet.spell("'a z") == Alphabet(ENGLISH).encode("'A Z")
    with pytest.raises(InputError, match="must use the alphabet"):
        alphabet.encode("naïve")


@given(st.lists(st.sampled_from(["A", "AB", "BA", "B"]), max_size=6), st.data())
def test_the_most_likely_division_is_found(words: list[str], data: st.DataObject) -> None:
    texts = (" ", "A", "B", " A", "AB", " BA")
    scores = data.draw(st.tuples(*[st.floats(-5, -0.1).map(lambda score: round(score, 3))] * len(texts)))
    pieces = Pieces("unigram", texts, scores)
    found = pieces.encode(" ".join(words))
    assert "".join(texts[index] for index in found) == "".join(f" {word}" for word in words)
    score = sum(scores[index] for index in found)
    best = sum(max(_scores(f" {word}", dict(zip(texts, scores, strict=True)))) for word in words)
    assert score == pytest.approx(best)


def _scores(word: str, scores: dict[str, float]) -> list[float]:
    """Lists the scores of all divisions of a word."""
    found = []
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        ends = [place + 1 for place, cut in enumerate(cuts) if cut]
        parts = [word[start:end] for start, end in itertools.pairwise([0, *ends, len(word)])]
        if all(part in scores for part in parts):
            found.append(sum(scores[part] for part in parts))
    return found


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("unigram A", "data.units must be PIECE:SCORE, got 'A'"),
        ("unigram A:x", "data.units must be PIECE:SCORE"),
        ("unigram A:nan", "data.units must have finite scores"),
        ("bpe ▁:0 A:-1 A:-2", "data.units must hold each piece once"),
        ("unigram A▁B:-1", "data.units must have spaces only where a word begins"),
        ("nothing.model", "data.units nothing.model must be a file, got none. Make it with lm units"),
    ],
)
def test_wrong_units_are_refused(units: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_units(units)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_text("words")
    with pytest.raises(InputError, match=r"must be a SentencePiece model, got .*a.model"):
        read_units(str(tmp_path / "a.model"))


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("AB", "data.alphabet must have a space"),
        ("ABC ", r"data.units must have each character of data.alphabet as a piece, got \['C'\]"),
        ("A ", r"data.units must be of the characters of data.alphabet, got \['B'\]"),
    ],
)
def test_pieces_must_fit_the_alphabet(alphabet: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Alphabet(alphabet, pieces=Pieces("bpe", (" ", "A", "B"), (-1.0, -2.0, -3.0)))

"""Binary files of KenLM are read like ARPA files. A fake stands in for KenLM itself."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.decoding.beam.search import BeamSearch, PartialSearch
from ds2_jax.decoding.ngram.kenlm_model import MAGIC, KenLMModel
from ds2_jax.decoding.ngram.model import load
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.beam_models import spoken
from tests.decoding.ngram.test_arpa import HAND_LISTED
from tests.decoding.ngram.test_model import defined, make
from tests.golden.ngram_inputs import HAND, NGram

CONTENT = MAGIC + b" format version 5\n\0" + b"<unk>\0not the words" + bytes(40)
WORDS = b"<unk>\0THE\0<s>\0SAT\0</s>\0CAT\0"


class FakeState:
    """The last two words. Like KenLM's states, it compares by value."""

    words: NGram = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FakeState) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)


class FakeModel:
    """KenLM's Python interface to the model HAND."""

    order = 3
    asked = 0

    def __init__(self, path: str) -> None:
        if b"broken" in Path(path).read_bytes():
            raise OSError(f"Cannot read model '{path}' (the file is short)")

    def __contains__(self, word: str) -> bool:
        return (word,) in HAND_LISTED and word != "<unk>"

    def BeginSentenceWrite(self, state: FakeState) -> None:  # noqa: N802 -- its name
        state.words = ("<s>",)

    def BaseScore(self, state: FakeState, word: str, after: FakeState) -> float:  # noqa: N802 -- its name
        self.asked += 1
        known = word if word in self else "<unk>"
        after.words = (*state.words, known)[-2:]
        return defined(HAND_LISTED, state.words, known)

    def full_scores(self, sentence: str, bos: bool, eos: bool) -> Iterator[tuple[float, int, bool]]:
        state = FakeState()
        state.words = ("<s>",) * bos
        for word in sentence.split() + ["</s>"] * eos:
            after = FakeState()
            yield self.BaseScore(state, word, after), 1, word not in self
            state = after


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "kenlm", types.SimpleNamespace(Model=FakeModel, State=FakeState))
    path = tmp_path / "model.arpa"  # the file's name does not matter
    path.write_bytes(CONTENT + WORDS)
    return path


def test_it_scores_as_the_arpa_file(binary: Path, tmp_path: Path) -> None:
    model = load(binary)
    assert isinstance(model, KenLMModel)
    (tmp_path / "ours").mkdir()
    ours = make(tmp_path / "ours", HAND)
    assert model.order == ours.order
    assert model.vocabulary == ours.vocabulary == ("CAT", "SAT", "THE")
    for sentence in ("", "THE CAT SAT", "DOG THE CAT CAT", ["THE", "CAT"]):
        for options in ({}, {"begin": False}, {"end": False}):
            assert model.score(sentence, **options) == ours.score(sentence, **options)
            scores, expected = model.word_scores(sentence, **options), ours.word_scores(sentence, **options)
            assert [score.unknown for score in scores] == [score.unknown for score in expected]
        state, own = model.begin_state, ours.begin_state
        for word in [*(sentence.split() if isinstance(sentence, str) else sentence), "</s>"]:
            (log10, state), (expected_log10, own) = model.next_word(state, word), ours.next_word(own, word)
            assert log10 == expected_log10
    assert model.perplexity(["THE CAT"]) == ours.perplexity(["THE CAT"])


def test_equal_states_have_equal_numbers_and_nothing_is_asked_twice(binary: Path) -> None:
    model = KenLMModel(binary)
    _, cat = model.next_word(model.next_word(model.begin_state, "THE")[1], "CAT")
    _, same = model.next_word(model.next_word(cat, "THE")[1], "CAT")
    assert same == cat != model.begin_state
    asked = model._model.asked
    assert model.next_word(model.begin_state, "THE") == model.next_word(model.begin_state, "THE")
    assert model._model.asked == asked


def test_each_user_has_states_of_its_own(binary: Path) -> None:
    model = KenLMModel(binary)
    one, other = model.with_own_states(), model.with_own_states()
    _, cat = one.next_word(one.begin_state, "CAT")
    _, the = other.next_word(other.begin_state, "THE")
    assert one._states[cat].words != other._states[the].words
    scores = one.next_word(cat, "SAT")[0], other.next_word(the, "SAT")[0]
    assert scores[0] != scores[1]
    alone = [model.next_word(model.begin_state, word)[1] for word in ("CAT", "THE")]
    assert scores == tuple(model.next_word(state, "SAT")[0] for state in alone)


def test_searches_with_one_model_run_side_by_side(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2_jax.decoding.ngram.kenlm_model.MOST_RESULTS", 8)
    alphabet = Alphabet("ACEHST ")
    search = BeamSearch(alphabet, DecodingOptions(lm=binary, alpha=2.0, beam_width=16), load(binary))
    utterances = [spoken(text, alphabet, 2.0) for text in ("THE CAT SAT " * 9, "SAT THE " * 9, "CAT CAT SAT " * 9)]
    alone = [search(log_probs, 16) for log_probs in utterances]
    running: list[PartialSearch] = []
    for turn in range(60):
        for late, log_probs in enumerate(utterances):
            if turn == 2 * late:
                running.append(search.start())
            if turn >= 2 * late:
                running[late].read(log_probs[4 * (turn - 2 * late) :][:4])
                running[late].best()
    assert max(len(progress._model._model._seen) for progress in running) < 18  # type: ignore[union-attr]
    assert [progress.hypotheses(16) for progress in running] == alone


def test_a_long_use_keeps_only_the_states_in_use(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = KenLMModel(binary)
    words = ("CAT", "THE", "SAT")
    states = np.array([model.next_word(model.begin_state, word)[1] for word in words])
    kept, firsts = states[:2], [model.next_word(model.begin_state, word)[0] for word in words]
    seconds = [model.next_word(state, word)[0] for state in kept.tolist() for word in words]
    model.keep(kept)  # there is room
    assert len(model._states) > 3
    monkeypatch.setattr("ds2_jax.decoding.ngram.kenlm_model.MOST_RESULTS", 4)
    model.keep(kept)
    assert sorted(model._states) == [model.begin_state, *kept]
    assert not model._seen
    assert [model.next_word(model.begin_state, word)[0] for word in words] == firsts
    assert [model.next_word(state, word)[0] for state in kept.tolist() for word in words] == seconds
    assert model.next_word(model.begin_state, "SAT")[1] not in states  # numbers are not used twice


def test_without_the_package(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    message = (
        r"model\.arpa must be an ARPA file if the package kenlm is not installed, got a binary file of KenLM\. "
        r"Name the ARPA file it was made from, or `pip install kenlm`, which needs a C\+\+ compiler and CMake\."
    )
    with pytest.raises(InputError, match=message):
        load(binary)


def test_a_file_that_kenlm_refuses(binary: Path) -> None:
    binary.write_bytes(CONTENT + b"broken")
    message = r"model\.arpa must be a binary file that KenLM reads, got: Cannot read model '.*' \(the file is short\)"
    with pytest.raises(InputError, match=message):
        load(binary)


@pytest.mark.parametrize("words", [b"", b"<unk>\0", WORDS + b"DOG\0", WORDS + b"\xff\0"])
def test_a_file_without_its_words(binary: Path, words: bytes) -> None:
    binary.write_bytes(CONTENT + words)
    with pytest.raises(
        InputError, match=r"must list its words in UTF-8, got no words or another encoding\. Make it again with"
    ):
        load(binary)

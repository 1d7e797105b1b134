"""Models equal figures computed by hand, a plain implementation of the formulas, and models of KenLM and irstlm."""

import collections
import errno
import gzip
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from ds2_jax.lm.kneser_ney import SPECIAL, Model, count_ngrams, estimate, score, write_arpa
from ds2_jax.system.errors import InputError
from tests.golden.make_kneser_ney import HEARD, NUM_SCORED, ORDER, TRAINED
from tests.golden.zipf_text import sentences

Ngram = tuple[str, ...]
TINY = ["A B A", "A B C", "B B A C", "A"]
"""The text of `test_figures_worked_out_by_hand`."""


def make_model(text: Sequence[str], order: int) -> tuple[Model, list[str]]:
    words = [*SPECIAL, *sorted(set(" ".join(text).split()))]
    return estimate(count_ngrams(make_tokens(text, words), order, len(words))), words


def make_tokens(text: Sequence[str], words: Sequence[str]) -> np.ndarray:
    places = {word: place for place, word in enumerate(words)}
    marked = " ".join(f"<s> {sentence} </s>" for sentence in text).split()
    return np.array([places.get(word, 0) for word in marked])


def ngrams_of(model: Model, words: Sequence[str]) -> dict[Ngram, tuple[float, float]]:
    """Returns the probability and back-off weight of each n-gram."""
    found: dict[Ngram, tuple[float, float]] = {}
    spelled: list[Ngram] = [()]
    for level, log_probs, backoffs in zip(model.levels, model.log_probs, model.backoffs, strict=True):
        spelled = [(*spelled[prefix], words[word]) for prefix, word in zip(level.prefixes, level.words, strict=True)]
        found |= zip(spelled, zip(10**log_probs, 10**backoffs, strict=True), strict=True)
    return found


class Reference:
    """The published formulas, computed with dictionaries, for each word after each context."""

    def __init__(self, text: Sequence[str], order: int) -> None:
        marked = [["<s>", *sentence.split(), "</s>"] for sentence in text]
        self.words = set().union(*marked) - {"<s>"}
        occurrences = collections.Counter(
            tuple(sentence[start : start + size])
            for size in range(1, order + 1)
            for sentence in marked
            for start in range(len(sentence) - size + 1)
        )
        self.counts: dict[Ngram, int] = {}
        for ngram, count in occurrences.items():
            before = {longer[0] for longer in occurrences if longer[1:] == ngram}
            whole = len(ngram) == order or (ngram[0] == "<s>" and len(ngram) > 1)
            self.counts[ngram] = count if whole else len(before)
        self.counts.pop(("<s>",), None)
        self.discounts = {size: self.discount(size) for size in range(1, order + 1)}

    def discount(self, size: int) -> list[float]:
        n = [0] + [sum(len(g) == size and c == k for g, c in self.counts.items()) for k in (1, 2, 3, 4)]
        try:
            y = n[1] / (n[1] + 2 * n[2])
            amounts = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        except ZeroDivisionError:
            return [0.5, 1.0, 1.5]
        return amounts if min(amounts) > 0 else [0.5, 1.0, 1.5]

    def take(self, ngram: Ngram) -> float:
        return self.discounts[len(ngram)][min(self.counts[ngram], 3) - 1]

    def backoff(self, context: Ngram) -> float:
        after = [ngram for ngram in self.counts if ngram[:-1] == context]
        return sum(map(self.take, after)) / sum(self.counts[ngram] for ngram in after) if after else 1.0

    def prob(self, word: str, context: Ngram) -> float:
        lower = self.prob(word, context[1:]) if context else 1 / (len(self.words) + 1)  # + 1 for the unknown word
        total = sum(count for ngram, count in self.counts.items() if ngram[:-1] == context)
        if total == 0:
            return lower
        ngram = (*context, word)
        own = (self.counts[ngram] - self.take(ngram)) / total if ngram in self.counts else 0.0
        return own + self.backoff(context) * lower


def test_figures_worked_out_by_hand() -> None:
    """A 2-gram of TINY.

    Different words before each word: </s>: A, C (2). A: <s>, B (2). B: <s>, A, B (3). C: A, B (2). So no unigram has a
    count of 1, and the unigrams' discounts are 0.5, 1, 1.5. There are 9 different bigrams, so the unigrams' back-off is
    (1 + 1 + 1.5 + 1) / 9 = 1/2, spread over <unk>, </s>, A, B, C: 1/10 each.
    Bigrams: <s>A 3, <s>B 1, A</s> 2, AB 2, AC 1, BA 2, BB 1, BC 1, C</s> 2. So n1 = 4, n2 = 4, n3 = 1, n4 = 0;
    Y = 4/12 = 1/3; D1 = 1 - 2/3 * 4/4 = 1/3, D2 = 2 - 3/3 * 1/4 = 7/4, D3 = 3.
    """
    model, words = make_model(TINY, 2)
    found = ngrams_of(model, words)
    assert model.discounts[0].fallback
    assert model.discounts[0].counts_of_counts == (0, 3, 1, 0)
    assert model.discounts[1].amounts == pytest.approx((1 / 3, 7 / 4, 3))
    assert not model.discounts[1].fallback
    probs = {"<unk>": 1 / 10, "</s>": 1 / 9 + 1 / 10, "A": 1 / 9 + 1 / 10, "B": 1.5 / 9 + 1 / 10, "C": 1 / 9 + 1 / 10}
    assert {word: found[word,][0] for word in probs} == pytest.approx(probs)
    after_start = (3 + 1 / 3) / 4
    after_a = (7 / 4 + 7 / 4 + 1 / 3) / 5
    assert found["<s>",] == pytest.approx((1e-99, after_start))
    assert found["<s>", "A"][0] == pytest.approx(after_start * probs["A"])
    assert found["<s>", "B"][0] == pytest.approx((2 / 3) / 4 + after_start * probs["B"])
    assert found["A",][1] == pytest.approx(after_a)
    assert found["A", "B"][0] == pytest.approx((1 / 4) / 5 + after_a * probs["B"])
    assert found["C", "</s>"][0] == pytest.approx((1 / 4) / 2 + (7 / 4) / 2 * probs["</s>"])
    assert found["<unk>",][1] == found["</s>",][1] == 1


TEXTS = strategies.lists(
    strategies.lists(strategies.sampled_from("ABCDE"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12
)


@hypothesis.given(text=TEXTS, order=strategies.integers(1, 3))
def test_every_ngram_is_what_the_formulas_give(text: list[str], order: int) -> None:
    model, words = make_model(text, order)
    reference = Reference(text, order)
    for ngram, (prob, backoff) in ngrams_of(model, words).items():
        if ngram != ("<s>",):
            assert prob == pytest.approx(reference.prob(ngram[-1], ngram[:-1]))
        if len(ngram) < order:
            assert backoff == pytest.approx(reference.backoff(ngram))


@hypothesis.given(text=TEXTS, heard=TEXTS, order=strategies.integers(1, 4))
def test_any_sentence_is_scored_as_the_formulas_say(text: list[str], heard: list[str], order: int) -> None:
    order = min(order, max(map(len, map(str.split, text))) + 2)
    model, words = make_model(text, order)
    reference = Reference(text, order)
    expected = []
    for sentence in heard:
        marked = [word if word in words else "<unk>" for word in ("<s>", *sentence.split(), "</s>")]
        expected.append(0.0)
        for place in range(1, len(marked)):
            context = tuple(marked[max(0, place - order + 1) : place])
            expected.append(math.log10(reference.prob(marked[place], context)))
    np.testing.assert_allclose(score(model, make_tokens(heard, words)), expected, atol=1e-12)


@hypothesis.given(text=TEXTS)
def test_probabilities_behind_any_context_sum_to_one(text: list[str]) -> None:
    model, words = make_model(text, 3)
    spoken = [word for word in words if word != "<s>"]
    for context in itertools.product([word for word in words if word not in SPECIAL], repeat=2):
        heard = [" ".join((*context, word)) for word in spoken]
        tokens = make_tokens(heard, words)
        last = np.flatnonzero(tokens == 1) + 3
        assert (10.0 ** score(model, tokens)[last]).sum() == pytest.approx(1)


def test_the_order_of_the_sentences_changes_nothing() -> None:
    one, words = make_model(TINY, 3)
    other, _ = make_model(TINY[::-1], 3)
    for ours, theirs in zip(one.log_probs, other.log_probs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert words == ["<unk>", "<s>", "</s>", "A", "B", "C"]


def test_no_ngram_spans_two_sentences() -> None:
    model, words = make_model(["A B", "C D"], 4)
    ngrams = ngrams_of(model, words)
    assert {ngram for ngram in ngrams if len(ngram) == 4} == {("<s>", "A", "B", "</s>"), ("<s>", "C", "D", "</s>")}
    assert not [ngram for ngram in ngrams if "<s>" in ngram[1:] or "</s>" in ngram[:-1]]


def test_discounts_that_are_not_above_0_are_the_fallback() -> None:
    model, _ = make_model(["A"] * 2 + ["B"] * 3 + ["C"] * 3 + ["D"] * 3 + ["E"], 1)
    assert model.discounts[0].counts_of_counts == (1, 1, 3, 0)  # D2 = 2 - 3 * 1/3 * 3/1 = -1
    assert model.discounts[0] == ((0.5, 1.0, 1.5), (1, 1, 3, 0), True)


def test_arpa_file_is_sorted_and_whole(tmp_path: Path) -> None:
    text = ["B", "B", "A"]
    model, words = make_model(text, 2)
    path = tmp_path / "folder" / "lm.arpa"
    write_arpa(path, model, words)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[:4] == ["\\data\\", "ngram 1=5", "ngram 2=4", ""]
    assert lines[-3:] == ["", "\\end\\", ""]
    start = lines.index("\\2-grams:") + 1
    assert [line.split("\t")[1] for line in lines[start : start + 4]] == ["<s> A", "<s> B", "A </s>", "B </s>"]
    rows = {line.split("\t")[1]: line.split("\t") for line in lines if "\t" in line}
    assert rows["<s>"][0] == "-99.000000"
    for ngram, (prob, backoff) in ngrams_of(model, words).items():
        row = rows[" ".join(ngram)]
        assert len(row) == (3 if len(ngram) == 1 else 2)
        assert float(row[0]) == pytest.approx(math.log10(prob), abs=5e-7)
        assert len(ngram) == 2 or float(row[2]) == pytest.approx(math.log10(backoff), abs=5e-7)


def test_rows_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = make_model(TINY, 3)
    write_arpa(tmp_path / "whole.arpa", model, words)
    monkeypatch.setattr("ds2_jax.lm.kneser_ney.ROWS_AT_ONCE", 2)
    write_arpa(tmp_path / "pieces.arpa", model, words)
    assert (tmp_path / "pieces.arpa").read_bytes() == (tmp_path / "whole.arpa").read_bytes()


def test_compressed_file_has_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = make_model(TINY, 2)
    write_arpa(tmp_path / "plain.arpa", model, words)
    write_arpa(tmp_path / "one.arpa.gz", model, words)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_arpa(tmp_path / "two.arpa.gz", model, words)
    packed = (tmp_path / "one.arpa.gz").read_bytes()
    assert packed == (tmp_path / "two.arpa.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "plain.arpa").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.arpa.gz", "plain.arpa", "two.arpa.gz"]


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        write_arpa(tmp_path, *make_model(TINY, 2))
    assert str(error.value) == (
        f"--out must be a file, got {tmp_path}, which is a folder. Add a name, such as lm.arpa.gz."
    )


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """Loads the models that KenLM and irstlm made from the same text."""
    found: dict[str, Any] = json.loads(
        (Path(__file__).parents[1] / "golden/kneser_ney.json").read_text(encoding="utf-8")
    )
    return found


@pytest.fixture(scope="module")
def larger() -> tuple[Model, list[str]]:
    """Builds a 3-gram model from the text of make_kneser_ney.py, 219,000 words."""
    return make_model(list(sentences(*TRAINED)), ORDER)


def heard_scores(model: Model, words: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log probabilities of held-out text without unknown words, and the sentence of each."""
    tokens = make_tokens(list(itertools.islice(sentences(*HEARD), count)), words)
    known = (tokens != 0) & (tokens != 1)
    return score(model, tokens)[known], (np.cumsum(tokens == 1) - 1)[known]


def test_kenlm_makes_the_same_model(golden: dict[str, Any], larger: tuple[Model, list[str]]) -> None:
    model, words = larger
    theirs = golden["kenlm"]
    assert [len(level.words) for level in model.levels] == theirs["counts"]
    for ours, amounts in zip(model.discounts, theirs["discounts"], strict=True):  # printed with six digits
        np.testing.assert_allclose(ours.amounts, [float(amount) for amount in amounts], rtol=1e-5)
    assert model.log_probs[0][0] == pytest.approx(theirs["unknown"], abs=1e-6)
    scores, places = heard_scores(model, words, NUM_SCORED)
    np.testing.assert_allclose(np.bincount(places, scores), theirs["log_probs"], atol=1e-5)  # KenLM's are float32
    assert 10 ** -heard_scores(model, words, HEARD[0])[0].mean() == pytest.approx(theirs["perplexity"], rel=1e-6)


def test_irstlm_makes_the_same_model_but_for_the_unknown_word(
    golden: dict[str, Any], larger: tuple[Model, list[str]]
) -> None:
    """irstlm gives the unknown word 6 %, and we and KenLM 0.001 %. So irstlm has less left for the known words."""
    model, words = larger
    theirs = golden["irstlm"]
    ours = ngrams_of(model, words)
    backoffs = {pair: math.log10(ours[tuple(pair.split())][1]) for pair in theirs["backoffs"]}
    assert len(backoffs) > 100
    # irstlm counts <s> <s> at the start of its text, so its discounts differ in the fifth digit. Measured: 5.9e-5.
    assert backoffs == pytest.approx(theirs["backoffs"], abs=1e-4)
    perplexity = 10 ** -heard_scores(model, words, HEARD[0])[0].mean()
    assert 0.96 * theirs["perplexity"] < perplexity < theirs["perplexity"]
    assert 10 ** theirs["unknown"] > 0.05


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(*_: object) -> Iterator[str]:
        yield "\\data\\\n"
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "lm.arpa"
    path.write_text("old")
    monkeypatch.setattr("ds2_jax.lm.kneser_ney._arpa_lines", lines)
    with pytest.raises(InputError) as error:
        write_arpa(path, *make_model(TINY, 2))
    assert str(error.value) == (
        f"{path} must be writable, got: No space left on device. Free space, or correct the path or its permissions."
    )
    assert [each.name for each in tmp_path.iterdir()] == ["lm.arpa"]
    assert path.read_text() == "old"

"""Prefix beam search equals sums over all paths, and keeps its promises with pruning, vocabularies and long inputs."""

import dataclasses
import itertools
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.beam import kernel
from ds2_jax.decoding.beam.search import BeamHypothesis, BeamSearch
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
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

ALPHABET = Alphabet("AB ")
SPACELESS = Alphabet("ABC")
MODEL = ToyModel("A", "AB", "BA", "BAB")
CHARACTERS = ToyModel("A", "B", seed=1)  # C is unknown
LM = Path("model.arpa")
lengths, seeds = st.integers(0, 5), st.integers(0, 10_000)
sharpnesses = st.sampled_from([0.3, 1.0, 4.0])


def narrow(width: int) -> DecodingOptions:
    return DecodingOptions(lm=LM, alpha=0.7, beta=0.4, unknown_penalty=2.0, beam_width=width)


def with_model(**changes: Any) -> DecodingOptions:
    given: dict[str, Any] = {"lm": LM, "alpha": 0.7, "beta": 0.4, "unknown_penalty": 2.0} | changes
    return dataclasses.replace(UNPRUNED, **given)


@given(lengths, seeds, sharpnesses, st.sampled_from([ALPHABET, SPACELESS]))
def test_every_text_has_the_sum_over_all_its_paths(n: int, seed: int, sharpness: float, alphabet: Alphabet) -> None:
    log_probs = random_log_probs(n, alphabet.size, seed, sharpness)
    expected = sums_over_paths(log_probs, alphabet)
    found = by_words(BeamSearch(alphabet, UNPRUNED)(log_probs, 10_000), alphabet)
    assert found.keys() == expected.keys()
    for words, hypothesis in found.items():
        assert hypothesis.score == hypothesis.log_prob == pytest.approx(expected[words], abs=1e-9)


@given(lengths, seeds, sharpnesses, st.sampled_from([(ALPHABET, MODEL), (SPACELESS, CHARACTERS)]))
def test_words_add_what_the_language_model_says(
    n: int, seed: int, sharpness: float, pair: tuple[Alphabet, ToyModel]
) -> None:
    alphabet, model = pair
    options = with_model()
    log_probs = random_log_probs(n, alphabet.size, seed, sharpness)
    expected = sums_over_paths(log_probs, alphabet)
    found = by_words(BeamSearch(alphabet, options, model)(log_probs, 10_000), alphabet)
    assert found.keys() == expected.keys()
    for words, hypothesis in found.items():
        assert hypothesis.log_prob == pytest.approx(expected[words], abs=1e-9)
        language = hypothesis.score - hypothesis.log_prob
        assert language == pytest.approx(language_score(words, model, options), abs=1e-9)


@given(lengths, seeds, st.sampled_from([(ALPHABET, MODEL), (SPACELESS, CHARACTERS)]))
def test_a_closed_vocabulary_gives_its_words_and_no_others(n: int, seed: int, pair: tuple[Alphabet, ToyModel]) -> None:
    alphabet, model = pair
    log_probs = random_log_probs(n, alphabet.size, seed)
    sums = sums_over_paths(log_probs, alphabet)
    allowed = {words for words in sums if set(words) <= set(model.vocabulary)}
    options = with_model(closed_vocabulary=True)
    found = by_words(BeamSearch(alphabet, options, model)(log_probs, 10_000), alphabet)
    assert found.keys() == allowed
    pruned = dataclasses.replace(options, beam_width=3, beam_threshold=5.0)
    for hypothesis in BeamSearch(alphabet, pruned, model)(log_probs, 10):
        assert words_of(hypothesis.labels, alphabet) in allowed


@given(st.lists(st.integers(0, ALPHABET.size - 1), max_size=12))
def test_certain_outputs_give_what_greedy_decoding_gives(labels: list[int]) -> None:
    log_probs = one_hot(labels, ALPHABET.size).reshape(-1, ALPHABET.size)
    hypothesis, *others = BeamSearch(ALPHABET, DecodingOptions())(log_probs, 5)
    assert not others
    assert hypothesis.labels == [span.label for span in greedy_decode(log_probs)]
    assert hypothesis.score == 0


@given(st.integers(1, 30), seeds, sharpnesses)
def test_the_best_texts_are_distinct_and_sorted(n: int, seed: int, sharpness: float) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed, sharpness)
    search = BeamSearch(ALPHABET, narrow(16), MODEL)
    every = search(log_probs, 16)
    assert len(by_words(every, ALPHABET)) == len(every)
    assert [-each.score for each in every] == sorted(-each.score for each in every)
    assert search(log_probs, 3) == every[:3]
    assert search(log_probs, 16) == every


@given(st.integers(1, 5), seeds, st.integers(1, 6), st.floats(0.5, 8), st.integers(1, 3), st.floats(-6, -0.5))
def test_pruning_only_takes_away(
    n: int, seed: int, width: int, threshold: float, max_labels: int, label_threshold: float
) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed)
    pruned = with_model(
        beam_width=width, beam_threshold=threshold, max_labels=max_labels, label_threshold=label_threshold
    )
    whole = by_words(BeamSearch(ALPHABET, with_model(), MODEL)(log_probs, 10_000), ALPHABET)
    for words, hypothesis in by_words(BeamSearch(ALPHABET, pruned, MODEL)(log_probs, 10_000), ALPHABET).items():
        assert hypothesis.log_prob <= whole[words].log_prob + 1e-9
        assert hypothesis.score <= whole[words].score + 1e-9


@given(st.integers(2, 60), seeds, st.integers(1, 59))
def test_reading_in_parts_changes_nothing(n: int, seed: int, cut: int) -> None:
    log_probs = random_log_probs(n, ALPHABET.size, seed, 2.0)
    search = BeamSearch(ALPHABET, narrow(8), MODEL)
    progress = search.start()
    progress.read(log_probs[:cut])
    progress.hypotheses(3)  # asking for hypotheses in between changes nothing
    progress.read(log_probs[cut:])
    assert progress.hypotheses(3) == search(log_probs, 3)


def test_a_label_pruned_by_number_or_threshold_follows_nothing() -> None:
    log_probs = np.log(np.array([[0.1, 0.5, 0.3, 0.1]], np.float32))
    for changes, expected in (
        ({}, {(), ("A",), ("B",)}),
        ({"max_labels": 1}, {(), ("A",)}),
        ({"max_labels": 2}, {(), ("A",), ("B",)}),
        ({"label_threshold": math.log(0.4)}, {(), ("A",)}),
        ({"beam_threshold": 1.0}, {("A",), ("B",)}),
        ({"beam_width": 1}, {("A",)}),
    ):
        options = dataclasses.replace(UNPRUNED, **changes)
        assert by_words(BeamSearch(ALPHABET, options)(log_probs, 9), ALPHABET).keys() == expected, changes


def test_of_equal_scores_the_lower_labels_come_first() -> None:
    log_probs = np.log(np.full((2, 4), 0.25, np.float32))
    found = [each.labels for each in BeamSearch(SPACELESS, narrow(40))(log_probs, 99)]
    # A, B and C have three paths each (blank before, blank after, label twice); other texts have one.
    assert found == [[1], [2], [3], [], [1, 2], [1, 3], [2, 1], [2, 3], [3, 1], [3, 2]]
    assert [each.labels for each in BeamSearch(SPACELESS, narrow(2))(log_probs, 9)] == [[1], []]


DECODE = """
import numpy as np
from tests.beam_models import ToyModel, random_log_probs
from tests.decoding.beam.test_search import ALPHABET, MODEL, BeamSearch, narrow
print(BeamSearch(ALPHABET, narrow(16), MODEL)(random_log_probs(200, ALPHABET.size, 3, 2.0), 16))
"""


def test_another_process_finds_the_same() -> None:
    root = Path(__file__).resolve().parents[3]
    found = BeamSearch(ALPHABET, narrow(16), MODEL)(random_log_probs(200, ALPHABET.size, 3, 2.0), 16)
    other = subprocess.run([sys.executable, "-c", DECODE], cwd=root, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(found)


def test_no_frames_and_silence_give_the_empty_text() -> None:
    silent = one_hot([0] * 7, ALPHABET.size)
    for log_probs in (silent[:0], silent):
        assert BeamSearch(ALPHABET, DecodingOptions())(log_probs, 3) == [BeamHypothesis([], 0.0, 0.0)]
        (found,) = BeamSearch(ALPHABET, with_model(), MODEL)(log_probs, 3)
        assert found.labels == []
        assert found.score == pytest.approx(language_score((), MODEL, with_model()))


def test_spaces_at_the_ends_and_repeated_ones_make_no_words() -> None:
    blank, a, _, space = range(4)
    log_probs = one_hot([space, blank, space, a, space, blank, space, a, space], 4)
    (found,) = BeamSearch(ALPHABET, with_model(), MODEL)(log_probs, 3)
    assert found.labels == [space, space, a, space, space, a, space]
    assert found.score == pytest.approx(language_score(("A", "A"), MODEL, with_model()))


def test_a_frame_without_a_possible_label_leaves_nothing() -> None:
    log_probs = random_log_probs(4, 4, 0)
    log_probs[2] = -np.inf
    assert BeamSearch(ALPHABET, DecodingOptions())(log_probs, 3) == []
    foreign = one_hot([2, 2], 4)  # no word of the vocabulary is B
    assert BeamSearch(ALPHABET, with_model(closed_vocabulary=True), MODEL)(foreign, 3) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_an_error(value: float) -> None:
    log_probs = random_log_probs(4, 4, 0)
    log_probs[2, 1] = value
    with pytest.raises(InputError) as error:
        BeamSearch(ALPHABET, DecodingOptions())(log_probs)
    assert str(error.value) == (
        f"The model's output must be numbers below infinity, got {value} in frame 2 of 4. Use weights from before the "
        "training diverged."
    )


def test_an_unknown_word_pays_at_once_and_only_once() -> None:
    _, a, b, _ = range(4)
    options = with_model(beam_width=1, alpha=0.0, beta=0.0)
    # No word begins with BB. The penalty at the second letter makes the narrow search take BA, which is less likely.
    log_probs = np.log(np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0.1, 0.4, 0.5, 0]], np.float32) + 1e-9)
    (found,) = BeamSearch(ALPHABET, options, MODEL)(log_probs)
    assert found.labels == [b, a]
    free = dataclasses.replace(options, unknown_penalty=0.0)
    (found,) = BeamSearch(ALPHABET, free, MODEL)(log_probs)
    assert found.labels == [b, b]


def test_known_words_are_not_glued_to_a_long_unknown_one() -> None:
    alphabet = Alphabet("AB ")
    words = ("ABAB", "BABA", "AABB", "BBAA")
    model = ToyModel(*words)
    model.log10 = dict.fromkeys(model.log10, -3.0)
    frames = alphabet.encode(" ".join(words))
    probs = np.full((2 * len(frames), alphabet.size), 1e-6)
    for place, label in enumerate(frames):  # a blank after every label; the space is a little less likely than none
        probs[2 * place, label] = 0.45 if label == 3 else 1.0
        probs[2 * place, 0] = 0.55 if label == 3 else 1e-6
        probs[2 * place + 1, 0] = 1.0
    log_probs = np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)
    search = BeamSearch(alphabet, DecodingOptions(lm=LM), model)
    assert alphabet.decode(search(log_probs)[0].labels) == " ".join(words)
    free = BeamSearch(alphabet, DecodingOptions(lm=LM, unknown_penalty=0.0), model)
    assert alphabet.decode(free(log_probs)[0].labels) == "".join(words)


@pytest.mark.parametrize(("text", "penalty"), [("B", 2.0), ("BBBBB", 2.0), ("BABABABAB", 3.6)])
def test_the_penalty_of_an_unknown_word_grows_with_its_length(text: str, penalty: float) -> None:
    frames = [label for letter in text for label in (ALPHABET.encode(letter)[0], 0)]
    log_probs = one_hot(frames, ALPHABET.size)
    with_penalty, without = (
        BeamSearch(ALPHABET, with_model(unknown_penalty=each), MODEL)(log_probs)[0].score for each in (2.0, 0.0)
    )
    assert without - with_penalty == pytest.approx(penalty)


def test_words_of_the_model_and_hot_words_are_known() -> None:
    options = with_model(hot_word=("BB=1",))
    search = BeamSearch(ALPHABET, options, MODEL).weighted(1.0, 0.0)
    assert [word for word in ("A", "AB", "BAB", "BB", "AA", "B", "ABBA") if search.knows(word)] == [
        "A",
        "AB",
        "BAB",
        "BB",
    ]
    assert BeamSearch(ALPHABET, UNPRUNED).knows("ABBA")  # without a model nothing is unknown
    assert BeamSearch(SPACELESS, with_model(), CHARACTERS).knows("ABC")  # its words are characters


def test_what_is_settled_counts_in_pruning_where_labels_are_words() -> None:
    log_probs = np.log(np.array([[0.05, 0.9, 0.03, 0.02], [0.45, 0.02, 0.5, 0.03]], np.float32))
    options = with_model(beam_threshold=2.0, alpha=0.0, beta=5.0)
    best, *_ = BeamSearch(SPACELESS, options, CHARACTERS)(log_probs)
    assert best.labels == [1, 2]
    assert best.score == pytest.approx(math.log(0.9 * 0.5) + 10, abs=1e-6)


def test_a_label_that_is_a_word_is_ranked_by_its_score_one_frame_later() -> None:
    log_probs = np.log(np.array([[0.001, 0.398, 0.001, 0.6], [0.997, 0.001, 0.001, 0.001]], np.float32))
    options = with_model(beam_threshold=3.0, alpha=0.0, unknown_penalty=10.0)
    search = BeamSearch(SPACELESS, options, CHARACTERS)
    assert by_words(search(log_probs[:1], 9), SPACELESS).keys() == {("A",), ("C",)}
    assert by_words(search(log_probs, 9), SPACELESS).keys() == {("A",)}  # C is unknown


def test_each_prefix_asks_for_its_word_once() -> None:
    log_probs = random_log_probs(60, ALPHABET.size, 1, 0.3)
    model = ToyModel("A", "AB", "BA", "BAB")
    asked: list[tuple[Any, ...]] = []
    search = BeamSearch(ALPHABET, narrow(4), model)
    progress = search.start()
    ask = progress._model.score  # type: ignore[union-attr]

    def count(states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(progress._search.asking[: len(states)].tolist())
        return ask(states, words)

    progress._model.score = count  # type: ignore[method-assign, union-attr]
    progress.read(log_probs)
    assert len(asked) == len(set(asked)) > 20


def test_an_hour_takes_little_memory() -> None:
    """In 90,000 frames of 40 ms nothing is certain. Dead prefixes must be dropped; live ones share one trunk."""
    log_probs = random_log_probs(90_000, ALPHABET.size, 0, 1.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    progress = BeamSearch(ALPHABET, narrow(16), MODEL).start()
    progress.read(log_probs)
    (found,) = progress.hypotheses(1)
    assert len(found.labels) > 10_000
    assert len(progress._search.nodes) <= 8 * len(found.labels)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


@pytest.mark.parametrize("seed", range(10))
def test_dropping_dead_nodes_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = random_log_probs(300, ALPHABET.size, seed)
    search = BeamSearch(ALPHABET, narrow(16), MODEL)
    roomy = search(log_probs, 16)
    monkeypatch.setattr("ds2_jax.decoding.beam.search.FIRST_NODES", 64)
    assert search(log_probs, 16) == roomy
    progress = search.start()
    progress.read(log_probs)
    assert len(progress._search.nodes) > 64  # it has grown
    count = progress._search.counts[kernel.NODES]
    assert count < 16 * 300  # and dropped
    nodes = progress._search.nodes[:count]
    assert len({(node["parent"], node["label"]) for node in nodes}) == count  # no prefix has two nodes


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 40))
def test_the_largest_come_first(values: list[int], size: int) -> None:
    size = min(size, len(values))
    order = np.arange(len(values))
    kernel._largest_first(np.array(values, float), order, len(values), size)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert sorted(order[:size]) == sorted(expected[:size])
    assert sorted(order) == list(range(len(values)))


def test_the_toy_model_is_a_model() -> None:
    words = list(itertools.product(MODEL.vocabulary, repeat=2))
    assert len({language_score(pair, MODEL, with_model()) for pair in words}) == len(words)

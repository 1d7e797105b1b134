"""What no later frame can change is known while a search runs, and needs no nodes."""

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.beam import kernel
from ds2_jax.decoding.beam.results import labels_of
from ds2_jax.decoding.beam.search import BeamSearch, PartialSearch
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.text.alphabet import Alphabet
from tests.beam_models import ToyModel, one_hot, random_log_probs

ALPHABET, SPACELESS = Alphabet("AB "), Alphabet("ABC")
WORDS = ToyModel("A", "AB", "BA", "BAB")
CHARACTERS = ToyModel("A", "B", seed=1)  # C is unknown
LM = Path("model.arpa")
HOT = ("BA=3", "AB=-1")


def make_search(width: int, *, spaces: bool = True, scored: bool = True, **changes: Any) -> BeamSearch:
    alphabet, model = (ALPHABET, WORDS) if spaces else (SPACELESS, CHARACTERS)
    lm: dict[str, Any] = {"lm": LM, "alpha": 0.7, "beta": 0.4, "unknown_penalty": 2.0} if scored else {}
    return BeamSearch(alphabet, DecodingOptions(**lm, **changes, beam_width=width), model if scored else None)


searches = st.builds(
    make_search,
    st.integers(1, 12),
    spaces=st.booleans(),
    scored=st.booleans(),
    hot_word=st.sampled_from([(), HOT]),
    beam_threshold=st.sampled_from([2.0, 14.0]),
) | st.builds(make_search, st.integers(1, 12), spaces=st.booleans(), closed_vocabulary=st.just(True))


@st.composite
def outputs(draw: st.DrawFn) -> np.ndarray:
    """Draws log-probabilities of 4 labels: repeated frames, silence, and equal scores among them."""
    log_probs = random_log_probs(draw(st.integers(1, 12)), 4, draw(st.integers(0, 10_000)), draw(st.floats(0.1, 6)))
    if draw(st.booleans()):
        log_probs = log_probs.round()
    return log_probs[draw(st.lists(st.integers(0, len(log_probs) - 1), min_size=1, max_size=60))]


def ranks(progress: PartialSearch) -> dict[tuple[int, ...], float]:
    """Returns the score of each prefix in the beam."""
    found = {}
    for active in progress._actives():
        node = progress._search.nodes[active["node"]]
        labels = (*progress._root_labels.tolist(), *labels_of(active["node"], progress._search.nodes).tolist())
        words = node["word_score"] if progress._rules.space < 0 else 0.0
        found[labels] = float(active["total"] + node["settled"] + node["pending"] + words)
    return found


@given(searches, outputs())
def test_what_is_settled_begins_every_prefix_and_every_later_hypothesis(
    search: BeamSearch, log_probs: np.ndarray
) -> None:
    progress = search.start()
    settled: list[int] = []
    for frame in log_probs:
        progress.read(frame[None])
        labels, count = progress.best()
        scores = ranks(progress)
        if scores:
            columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*scores, strict=False))
            assert labels[:count] == [column[0] for column in columns]
            assert scores[tuple(labels)] == max(scores.values())
        assert labels[: len(settled)] == settled
        settled = labels[:count]
    for hypothesis in progress.hypotheses(12):
        assert hypothesis.labels[: len(settled)] == settled


@given(searches, outputs(), st.integers(0, 3), st.booleans())
def test_cutting_the_trie_changes_nothing(search: BeamSearch, log_probs: np.ndarray, seldom: int, short: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if short:
            patch.setattr("ds2_jax.decoding.beam.search.SPAN", 5)
            patch.setattr("ds2_jax.decoding.beam.search.RIVAL_LABELS", 3)
        with patch.context() as inner:
            inner.setattr(PartialSearch, "_cut", lambda self: None)  # keeps all nodes
            whole = search(log_probs, 12)
        progress = search.start()
        for count, frame in enumerate(log_probs):
            progress.read(frame[None])
            if count % (1 + seldom) == 0:
                progress.best()
        assert progress.hypotheses(12) == whole


@pytest.mark.parametrize("spaces", [True, False])
def test_a_full_trie_is_cut(spaces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    search, log_probs = make_search(8, spaces=spaces), random_log_probs(2000, 4, 3, 3.0)
    roomy = search.start()
    with monkeypatch.context() as patch:
        patch.setattr(PartialSearch, "_cut", lambda self: None)
        roomy.read(log_probs)
    monkeypatch.setattr("ds2_jax.decoding.beam.search.FIRST_NODES", 64)
    progress = search.start()
    progress.read(log_probs)
    assert len(progress._root_labels) > 500
    assert len(progress._search.nodes) < roomy._search.counts[kernel.NODES] / 4
    assert progress.hypotheses(8) == roomy.hypotheses(8)


def test_the_last_label_of_the_root_can_go_on() -> None:
    a, b = ALPHABET.encode("AB")
    progress = make_search(4, scored=False).start()
    progress.read(one_hot([a], 4))
    assert progress.best() == ([a], 1)  # the only prefix is the root
    progress.read(one_hot([a, 0, a, b], 4))
    assert progress.best() == ([a, a, b], 3)


def test_of_two_prefixes_that_share_nothing_nothing_is_settled() -> None:
    log_probs = np.log(np.array([[0, 0.6, 0.4, 0], [1, 0, 0, 0]], np.float32) + 1e-30)
    progress = make_search(2, scored=False).start()
    progress.read(log_probs)
    assert progress.best() == ([1], 0)
    progress.read(one_hot([3], 4))  # both have a space now
    assert progress.best() == ([1, 3], 0)


def test_when_nothing_is_left_what_was_settled_stays() -> None:
    progress = make_search(2, scored=False).start()
    progress.read(one_hot([1, 2], 4))
    assert progress.best() == ([1, 2], 2)
    progress.read(np.full((1, 4), -np.inf, np.float32))
    assert progress.best() == ([1, 2], 2)
    progress.read(one_hot([1, 2], 4))
    assert progress.best() == ([1, 2], 2)
    assert progress.hypotheses(2) == []


def test_a_rival_is_dropped_when_its_difference_is_old() -> None:
    first = np.log(np.array([[0, 0.6, 0.4, 0]], np.float32) + 1e-30)
    progress = make_search(2, scored=False).start()
    progress.read(np.concatenate([first, one_hot([0, 1] * 1023, 4)]))
    assert len(progress.hypotheses(2)) == 2
    assert progress.best()[1] == 0
    progress.read(one_hot([0, 1] * 256 + [0], 4))
    (found,) = progress.hypotheses(2)
    assert found.labels == [1] * 1280
    assert progress.best() == (found.labels, 1280)


def test_two_hours_take_as_much_memory_as_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 40 ms: 20 s of talk, then 20 s of silence, again and again."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(180_000) < 0.25, rng.integers(1, 4, 180_000), 0)
    labels[np.arange(180_000) // 500 % 2 == 1] = 0
    logits = rng.normal(0, 1, (180_000, 4))
    logits[np.arange(180_000), labels] += 6
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr("ds2_jax.decoding.beam.search.RIVAL_LABELS", 100)  # 16 s of talk here
    progress = make_search(4, scored=False).start()
    progress.read(log_probs[:1500])
    nodes = len(progress._search.nodes)
    tracemalloc.start()
    try:
        progress.read(log_probs[1500:])
        more, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(progress._search.nodes) == nodes
    assert len(progress._root_labels) > 15_000
    assert more < 4 * len(progress._root_labels) + 2**15

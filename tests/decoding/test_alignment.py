"""Forced alignment finds the best path that collapses to given labels."""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.decoding import alignment as alignment_lib
from ds2_jax.decoding.alignment import align_labels
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.system.errors import InputError

NUM_LABELS = 4
BLANK = 0


def collapse(path: Sequence[int]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != BLANK]


def spans_of(path: Sequence[int]) -> list[LabelSpan]:
    """Returns the runs of a path without blanks."""
    spans, frame = [], 0
    for label, group in itertools.groupby(path):
        length = len(list(group))
        if label != BLANK:
            spans.append(LabelSpan(label, frame, frame + length - 1))
        frame += length
    return spans


def progress(path: Sequence[int]) -> list[int]:
    """Returns how far in the text a path is at each frame: twice the labels begun, and one more on the blank after."""
    begun, far = 0, []
    for before, label in itertools.pairwise([BLANK, *path]):
        begun += label not in (BLANK, before)
        far.append(2 * begun - (label != BLANK))
    return far


def brute_force(log_probs: np.ndarray, labels: Sequence[int]) -> list[LabelSpan] | None:
    """Finds the best of all paths that collapse to `labels`. Ties go to the one further on, compared from the end."""
    paths = [p for p in itertools.product(range(NUM_LABELS), repeat=len(log_probs)) if collapse(p) == list(labels)]
    scored = [(sum(float(row[label]) for row, label in zip(log_probs, p, strict=True)), p) for p in paths]
    scored = [(score, p) for score, p in scored if score > -math.inf]
    return spans_of(max(scored, key=lambda each: (each[0], progress(each[1])[::-1]))[1]) if scored else None


paths = st.lists(st.integers(0, NUM_LABELS - 1), min_size=1, max_size=6)  # few labels make many repeats
numbers = st.sampled_from(
    [[0.0, -1.0], [0.0, -1.0, -math.inf], [-n / 8 for n in range(40)]]  # many ties; impossible labels; few ties
)
seeds = st.integers(0, 2**32 - 1)


@given(paths, numbers, seeds)
@settings(max_examples=300)
def test_equals_brute_force(path: list[int], values: list[float], seed: int) -> None:
    """Sums of these values are exact, so that ties are exact."""
    log_probs = np.random.default_rng(seed).choice(values, (len(path), NUM_LABELS)).astype(np.float32)
    labels = collapse(path)
    expected = brute_force(log_probs, labels)
    if labels and expected is None:
        with pytest.raises(InputError, match="cannot be aligned"):
            align_labels(log_probs, labels)
    else:
        assert align_labels(log_probs, labels) == (expected if labels else [])


@given(st.integers(1, 60), seeds)
def test_labels_of_greedy_decoding_lie_on_its_path(num_frames: int, seed: int) -> None:
    log_probs = np.random.default_rng(seed).normal(size=(num_frames, NUM_LABELS)).astype(np.float32)
    spans = greedy_decode(log_probs)
    assert align_labels(log_probs, [span.label for span in spans]) == spans


@given(
    st.lists(st.tuples(st.integers(1, NUM_LABELS - 1), st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=30),
    seeds,
)
def test_planted_posteriors_are_found_to_the_frame(steps: list[tuple[int, int, int]], seed: int) -> None:
    """Each frame's true label has at least 0.6, and the rest is random, like a trained model's posteriors."""
    path: list[int] = []
    for label, num_frames, num_blanks in steps:
        path += [BLANK] * max(num_blanks, int(path[-1:] == [label])) + [label] * num_frames
    generator = np.random.default_rng(seed)
    probs = 0.4 * generator.dirichlet(np.ones(NUM_LABELS), len(path))
    probs[np.arange(len(path)), path] += 0.6
    assert align_labels(np.log(probs).astype(np.float32), collapse(path)) == spans_of(path)


def test_text_that_the_model_did_not_hear_lies_where_it_costs_least() -> None:
    """B was spoken. The text is A, which is most likely in frame 3."""
    probs = np.full((6, NUM_LABELS), 0.01)
    probs[:, BLANK], probs[2:4, 2], probs[3, 1] = 0.9, 0.6, 0.3
    assert align_labels(np.log(probs).astype(np.float32), [1]) == [LabelSpan(1, 3, 3)]


@given(st.integers(1, 9), seeds)
def test_blocks_change_nothing(block: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    log_probs = generator.integers(-8, 0, (generator.integers(12, 40), NUM_LABELS)).astype(np.float32)  # many ties
    labels = generator.integers(1, NUM_LABELS, 6).tolist()
    whole = align_labels(log_probs, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment_lib, "BLOCK_FRAMES", block)
        assert align_labels(log_probs, labels) == whole


def test_no_labels_lie_nowhere() -> None:
    assert align_labels(np.zeros((5, NUM_LABELS), np.float32), []) == []
    assert align_labels(np.zeros((0, NUM_LABELS), np.float32), []) == []


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_what_is_no_logarithm_is_refused(strange: float) -> None:
    log_probs = np.zeros((3, NUM_LABELS), np.float32)
    log_probs[2, 3] = strange
    with pytest.raises(InputError) as caught:
        align_labels(log_probs, [1])
    assert str(caught.value) == (
        "log_probs must hold numbers below infinity, got NaN or infinity. Use weights from before the training "
        "diverged."
    )


def test_too_few_frames_are_told_with_the_number_needed() -> None:
    with pytest.raises(InputError) as caught:
        align_labels(np.zeros((3, NUM_LABELS), np.float32), [1, 1, 2])
    assert str(caught.value) == (
        "A text of 3 labels must have at least 4 output frames, got 3. "
        "Give the text of this recording, or the whole recording."
    )
    assert align_labels(np.zeros((4, NUM_LABELS), np.float32), [1, 1, 2]) == [(1, 0, 0), (1, 2, 2), (2, 3, 3)]


def test_text_of_probability_zero_is_refused() -> None:
    log_probs = np.zeros((3, NUM_LABELS), np.float32)
    log_probs[:, 2] = -np.inf
    with pytest.raises(InputError) as caught:
        align_labels(log_probs, [1, 2])
    assert str(caught.value) == (
        "A text of 2 labels must be possible in its recording, got probability 0: it cannot be aligned. "
        "Give the text of this recording."
    )


@pytest.mark.parametrize("labels", [[0, 1], [1, NUM_LABELS], [-1]])
def test_labels_that_are_none_are_refused(labels: list[int]) -> None:
    message = f"labels must be 1 to 3, got {min(labels)} to {max(labels)}. Leave blanks out."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        align_labels(np.zeros((5, NUM_LABELS), np.float32), labels)

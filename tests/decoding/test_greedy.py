"""Greedy decoding collapses the best path."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import LabelSpan
from ds2_jax.text.alphabet import Alphabet

NUM_LABELS = 4
BLANK = Alphabet.blank_index

best_labels = st.lists(st.integers(0, NUM_LABELS - 1), max_size=12)


def decode(row: list[int]) -> list[LabelSpan]:
    return greedy_decode(np.eye(NUM_LABELS, dtype=np.float32)[np.array(row, int)])


@given(best_labels)
def test_labels_are_the_collapsed_row_without_blanks(row: list[int]) -> None:
    collapsed = [label for label, _ in itertools.groupby(row)]
    assert [span.label for span in decode(row)] == [label for label in collapsed if label != BLANK]


@given(best_labels)
def test_spans_are_the_maximal_runs_of_their_label(row: list[int]) -> None:
    covered: set[int] = set()
    for label, first, last in decode(row):
        assert row[first : last + 1] == [label] * (last + 1 - first)
        assert row[first - 1 : first] != [label]
        assert row[last + 1 : last + 2] != [label]
        covered.update(range(first, last + 1))
    assert covered == {frame for frame, label in enumerate(row) if label != BLANK}


@given(st.lists(st.tuples(st.integers(1, NUM_LABELS - 1), st.integers(1, 3), st.integers(0, 2)), max_size=6))
def test_any_alignment_decodes_to_its_labels(steps: list[tuple[int, int, int]]) -> None:
    row: list[int] = []
    previous = BLANK
    for label, num_frames, num_blanks in steps:
        separator = max(num_blanks, int(label == previous))  # CTC needs a blank between equal labels
        row += [BLANK] * separator + [label] * num_frames
        previous = label
    assert [span.label for span in decode(row)] == [label for label, _, _ in steps]

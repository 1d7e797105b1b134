import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.alphabet import Alphabet
from ds2_jax.decoding.greedy import LabelSpan, Word, greedy_decode, transcript_and_words

ALPHABET = Alphabet("AB ")
BLANK, A, B, SPACE = range(4)

best_labels = st.lists(st.integers(0, ALPHABET.size - 1), max_size=12)


def decode_one(row: list[int]) -> list[LabelSpan]:
    return greedy_decode(np.array([row], dtype=np.int32).reshape(1, -1), np.array([len(row)]))[0]


@given(best_labels)
def test_labels_are_the_collapsed_row_without_blanks(row: list[int]) -> None:
    collapsed = [label for label, _ in itertools.groupby(row)]
    assert [span.label for span in decode_one(row)] == [label for label in collapsed if label != BLANK]


@given(best_labels)
def test_spans_are_the_maximal_runs_of_their_label(row: list[int]) -> None:
    covered: set[int] = set()
    for label, first, last in decode_one(row):
        assert row[first : last + 1] == [label] * (last + 1 - first)
        assert row[first - 1 : first] != [label]
        assert row[last + 1 : last + 2] != [label]
        covered.update(range(first, last + 1))
    assert covered == {frame for frame, label in enumerate(row) if label != BLANK}


@given(st.lists(st.tuples(st.integers(1, ALPHABET.size - 1), st.integers(1, 3), st.integers(0, 2)), max_size=6))
def test_any_alignment_decodes_to_its_labels(steps: list[tuple[int, int, int]]) -> None:
    row: list[int] = []
    previous = BLANK
    for label, num_frames, num_blanks in steps:
        separator = max(num_blanks, int(label == previous))  # CTC needs a blank between equal labels
        row += [BLANK] * separator + [label] * num_frames
        previous = label
    assert [span.label for span in decode_one(row)] == [label for label, _, _ in steps]


def test_each_row_is_read_up_to_its_length() -> None:
    rows = np.array([[A, A, BLANK, A], [B, B, B, A], [A, B, A, B]], dtype=np.int32)
    decoded = greedy_decode(rows, np.array([4, 2, 0], dtype=np.int32))
    assert decoded == [[LabelSpan(A, 0, 1), LabelSpan(A, 3, 3)], [LabelSpan(B, 0, 1)], []]


def test_words_lie_between_their_outer_labels() -> None:
    row = [SPACE, A, A, BLANK, B, SPACE, BLANK, SPACE, BLANK, B, BLANK, SPACE]
    text, words = transcript_and_words(decode_one(row), ALPHABET, seconds_per_frame=0.5)
    assert text == "AB B"
    assert words == [Word("AB", 0.5, 2.5), Word("B", 4.5, 5.0)]


def test_silence_has_no_words() -> None:
    assert transcript_and_words([], ALPHABET, 0.02) == ("", [])
    assert transcript_and_words(decode_one([BLANK, SPACE, BLANK]), ALPHABET, 0.02) == ("", [])


@given(best_labels)
def test_text_is_the_words_of_the_labels(row: list[int]) -> None:
    spans = decode_one(row)
    text, words = transcript_and_words(spans, ALPHABET, 0.02)
    assert text == " ".join(word.text for word in words)
    assert text.split() == ALPHABET.decode(span.label for span in spans).split()


@given(best_labels)
def test_word_times_rise_within_the_utterance(row: list[int]) -> None:
    _, words = transcript_and_words(decode_one(row), ALPHABET, seconds_per_frame=0.25)
    times = [time for word in words for time in (word.start, word.end)]
    assert all(word.start < word.end for word in words)
    assert times == sorted(times)
    assert all(0 <= time <= 0.25 * len(row) for time in times)

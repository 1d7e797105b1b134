"""Cues are readable, whatever was said."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.cues import Cue, make_cues, text_width
from ds2_jax.recognition.transcript import Transcript
from tests.spoken import evenly_spoken, spoken_word, transcripts

SENTENCE = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS AWAY FROM IT AS FAST AS IT POSSIBLY CAN"


def cues_of(transcript: Transcript) -> list[Cue]:
    return make_cues([each.readings[0].words for each in transcript.segments], transcript.duration)


def words_of(cues: list[Cue]) -> list[str]:
    return " ".join(cue.text for cue in cues).split()


@given(transcripts())
def test_no_character_is_lost_doubled_or_moved(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    assert "".join("".join(cue.lines) for cue in cues).replace(" ", "") == transcript.text.replace(" ", "")
    assert "".join(cue.text for cue in cues).replace(" ", "") == transcript.text.replace(" ", "")
    for cue in cues:
        assert cue.text in (" ".join(cue.lines), "".join(cue.lines))
        assert all(line and line == line.strip(" ") for line in cue.lines)


@given(transcripts())
def test_at_most_two_lines_of_42_columns(transcript: Transcript) -> None:
    for cue in cues_of(transcript):
        assert 1 <= len(cue.lines) <= 2
        assert all(text_width(line) <= 42 for line in cue.lines)
        assert len(cue.lines) == 1 or text_width(cue.text) > 42  # one line if the text fits


@given(transcripts())
def test_cues_follow_one_another_and_last_at_most_seven_seconds(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    for cue in cues:
        assert 0 <= cue.start < cue.end
        assert cue.end - cue.start <= 7001  # rounded at both ends
    for one, other in pairwise(cues):
        assert one.end <= other.start


@given(transcripts(least_time=0.01))
def test_a_cue_is_short_or_fast_only_where_the_next_or_the_end_is_near(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    starts = [*(cue.start for cue in cues), round(1000 * transcript.duration)]
    for cue, following in zip(cues, starts[1:], strict=True):
        seconds, left = (cue.end - cue.start) / 1000, (following - cue.end) / 1000
        if seconds < 0.99:
            assert left <= 0.081
        if text_width(cue.text) / seconds > 17.5 and seconds < 6.99:
            spoken = [w for w in transcript.words if w.end <= cue.end / 1000 + 1e-3]
            lingers = bool(spoken) and cue.end / 1000 - spoken[-1].end > 1.49
            assert left <= 0.081 or lingers


@given(transcripts(least_time=0.01))
def test_gaps_are_80_ms_or_long_enough_not_to_flicker(transcript: Transcript) -> None:
    for one, other in pairwise(cues_of(transcript)):
        seconds, gap = (one.end - one.start) / 1000, (other.start - one.end) / 1000
        assert 0.079 <= gap <= 0.081 or gap >= 0.999 or (gap < 0.08 and seconds < 1.081) or seconds > 6.999


@given(transcripts(least_time=0.01))
def test_long_pauses_part_cues(transcript: Transcript) -> None:
    cues = cues_of(transcript)
    for one, other in pairwise(transcript.words):
        if other.start - one.end >= 1.0:
            middle = 1000 * other.start - 1
            assert not any(cue.start < 1000 * one.end - 1 and cue.end > middle + 2 for cue in cues)


@given(st.lists(st.sampled_from("A GO YES MAYBE POSSIBLE EVERYBODY".split()), min_size=1, max_size=60))
def test_ordinary_speech_meets_every_limit(texts: list[str]) -> None:
    """Makes two and a half words a second, with a pause of 0.3 s after every seventh."""
    words: list[Word] = []
    time = 0.0
    for index, text in enumerate(texts):
        words.append(spoken_word(text, time, time + 0.35))
        time += 0.35 + (0.3 if index % 7 == 6 else 0.05)
    cues = make_cues([words], time + 1.5)
    for one, other in pairwise(cues):
        assert other.start - one.end >= 79
    for cue in cues:
        assert 999 <= cue.end - cue.start <= 7001
        assert text_width(cue.text) / (cue.end - cue.start) * 1000 <= 25
    assert words_of(cues) == texts


def test_a_word_is_shown_for_a_second() -> None:
    assert make_cues([[spoken_word("GO", 0.5, 0.7)]], 3.0) == [Cue(500, 1500, "GO", ("GO",))]


def test_no_longer_than_the_recording() -> None:
    assert make_cues([[spoken_word("GO", 0.5, 0.7)]], 0.9) == [Cue(500, 900, "GO", ("GO",))]


def test_no_overlap_where_time_stands_still() -> None:
    one, other = make_cues([[spoken_word("A" * 100, 1.0, 1.0)]], 2.0)
    assert one.start < one.end <= other.start < other.end


def test_no_words_no_cues() -> None:
    assert make_cues([], 1.0) == make_cues([[], []], 1.0) == []


def test_a_pause_is_used_for_reading_for_at_most_a_second_and_a_half() -> None:
    fast = spoken_word("A" * 40, 0.0, 0.5)  # 40 characters would take 2.35 s to read
    first, second = make_cues([[fast, spoken_word("B", 9.0, 9.5)]], 20.0)
    assert (first.start, first.end) == (0, 2000)
    assert second.start == 9000


def test_short_gaps_are_closed_up_to_80_ms() -> None:
    words = [*evenly_spoken(SENTENCE), *evenly_spoken(SENTENCE, start=11.0)]
    cues = make_cues([words[:19], words[19:]], 30.0)
    gaps = {other.start - one.end for one, other in pairwise(cues)}
    assert all(gap == 80 or gap >= 1000 for gap in gaps)


def test_parted_at_pauses_rather_than_when_full() -> None:
    words = evenly_spoken("IN THE BEGINNING THERE WAS NOTHING")
    words += evenly_spoken("THEN CAME THE LIGHT AND IT WAS GOOD", start=words[-1].end + 0.5)
    assert [cue.text for cue in make_cues([words], 20.0)] == [
        "IN THE BEGINNING THERE WAS NOTHING",
        "THEN CAME THE LIGHT AND IT WAS GOOD",
    ]


@pytest.mark.parametrize(("pause", "count"), [(0.45, 1), (0.55, 2)])
def test_a_pause_of_half_a_second_is_worth_a_cue(pause: float, count: int) -> None:
    words = evenly_spoken("THERE WAS NOTHING", pause=0.0)
    words += evenly_spoken("THEN CAME LIGHT", pause=0.0, start=words[-1].end + pause)
    assert len(make_cues([words], 20.0)) == count


def test_parted_where_segments_end() -> None:
    words = evenly_spoken(SENTENCE[:39], pause=0.05)
    cues = make_cues([words[:3], words[3:]], 20.0)
    assert [cue.text for cue in cues] == ["THE QUICK BROWN", "FOX JUMPS OVER THE LAZY"]


def test_lines_are_balanced() -> None:
    (cue,) = make_cues([evenly_spoken("ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN", 0.3, 0.05)], 20.0)
    assert cue.lines == ("ONE TWO THREE FOUR FIVE", "SIX SEVEN EIGHT NINE TEN")


def test_lines_are_parted_in_a_pause_near_the_middle() -> None:
    words = evenly_spoken("ONE TWO THREE FOUR FIVE SIX", 0.3, 0.05)
    words += evenly_spoken("SEVEN EIGHT NINE TEN", 0.3, 0.05, start=words[-1].end + 0.3)
    (cue,) = make_cues([words], 20.0)
    assert cue.lines == ("ONE TWO THREE FOUR FIVE SIX", "SEVEN EIGHT NINE TEN")


def test_lines_are_parted_at_a_space_rather_than_within_a_word() -> None:
    word = spoken_word("A" * 43, 0.0, 4.3)
    late = tuple(each._replace(start=each.start + 2, end=each.end + 2) for each in word.characters[13:])
    word = word._replace(end=6.3, characters=word.characters[:13] + late)
    _, cue = make_cues([[word, spoken_word("B" * 15, 6.4, 7.4)]], 20.0)
    assert cue.lines == ("A" * 30, "B" * 15)


@pytest.mark.parametrize("character", ["語", "ไ", "A"])
def test_a_language_without_spaces_is_parted_by_the_times_of_its_characters(character: str) -> None:
    pause_at = 30
    text = character * 60
    word = spoken_word(text, 0.0, 12.0)
    late = tuple(each._replace(start=each.start + 2, end=each.end + 2) for each in word.characters[pause_at:])
    word = word._replace(end=14.0, characters=word.characters[:pause_at] + late)
    cues = make_cues([[word]], 20.0)
    assert "".join(cue.text for cue in cues) == text
    starts = [cue.start for cue in cues]
    assert 8000 in starts  # after the pause
    assert len("".join(cue.text for cue in cues[: starts.index(8000)])) == pause_at


def test_what_is_spoken_slowly_is_parted_too() -> None:
    cues = make_cues([[spoken_word("語" * 10, 0.0, 20.0)]], 30.0)
    assert "".join(cue.text for cue in cues) == "語" * 10
    assert [len(cue.text) * 2000 for cue in cues[:-1]] == [other.start - one.start for one, other in pairwise(cues)]
    assert max(len(cue.text) for cue in cues) == 3


def test_accents_stay_on_their_character() -> None:
    text = "กี้" * 60  # a consonant, a vowel sign and a tone mark
    for cue in make_cues([[spoken_word(text, 0.0, 40.0)]], 50.0):
        assert all(line.startswith("ก") for line in cue.lines)


def test_right_to_left_text_is_as_it_was() -> None:
    words = evenly_spoken("שלום לכולם وأهلا وسهلا")
    (cue,) = make_cues([words], 5.0)
    assert cue.lines == ("שלום לכולם وأهلا وسهلا",)


def test_wide_characters_take_two_columns() -> None:
    assert [text_width(text) for text in ("abc", "語", "กี้", "e\u0301", "한")] == [3, 2, 1, 1, 2]


def test_an_hour_takes_seconds_at_most() -> None:
    words = evenly_spoken(" ".join([SENTENCE] * 400))
    cues = make_cues([words], 4000.0)
    assert words_of(cues) == SENTENCE.split() * 400

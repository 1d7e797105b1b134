"""Each format follows its specification: independent parsers read it back, whatever was said."""

import json
import os
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given

from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition import cues
from ds2_jax.recognition.formats import Format, ctm_name, render, to_ctm, to_json, to_srt, to_tsv, to_txt, to_vtt
from ds2_jax.recognition.transcript import Segment, Transcript
from tests.spoken import evenly_spoken, reading, spoken_word, transcript_of, transcripts
from tests.subtitle_parsers import parse_ctm, parse_srt, parse_tsv, parse_vtt

TURN_ON = [spoken_word("TURN", 0.24, 0.52, 0.91), spoken_word("ON", 0.68, 0.8, 0.875)]


def cues_of(transcript: Transcript) -> list[cues.Cue]:
    return cues.make_cues([each.readings[0].words for each in transcript.segments], transcript.duration)


@given(transcripts())
def test_srt_holds_the_cues(transcript: Transcript) -> None:
    expected = [
        (cue.start, cue.end, [line.replace("-->", "-- >") for line in cue.lines]) for cue in cues_of(transcript)
    ]
    assert parse_srt(to_srt(transcript)) == expected


@given(transcripts())
def test_vtt_holds_the_cues(transcript: Transcript) -> None:
    assert parse_vtt(to_vtt(transcript)) == [(cue.start, cue.end, list(cue.lines)) for cue in cues_of(transcript)]


@given(transcripts())
def test_tsv_holds_the_cues(transcript: Transcript) -> None:
    assert parse_tsv(to_tsv(transcript)) == [(cue.start, cue.end, cue.text) for cue in cues_of(transcript)]


@given(transcripts())
def test_ctm_holds_the_words(transcript: Transcript) -> None:
    parsed = parse_ctm(to_ctm(transcript, "a"))
    assert [each.word for each in parsed] == [word.text for word in transcript.words]
    for each, word in zip(parsed, transcript.words, strict=True):
        assert (each.recording, each.channel) == ("a", "1")
        assert abs(each.start - word.start) <= 0.0005001
        assert abs(each.start + each.duration - max(word.end, word.start + 0.001)) <= 0.0010001
        assert abs(each.confidence - word.confidence) <= 0.00005001


@given(transcripts())
def test_json_holds_everything(transcript: Transcript) -> None:
    text = to_json(transcript)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    value = json.loads(text, parse_constant=pytest.fail)
    assert value["text"] == transcript.text
    assert value["duration"] == pytest.approx(transcript.duration, abs=0.0005001)
    assert len(value["words"]) == len(transcript.words)
    for each, word in zip(value["words"], transcript.words, strict=True):
        assert each["word"] == word.text == "".join(character for character, _, _ in each["characters"])
        assert each["start"] == pytest.approx(word.start, abs=0.0005001)
        assert each["end"] == pytest.approx(word.end, abs=0.0005001)
        assert each["characters"][0][1] == each["start"]
        assert each["characters"][-1][2] == each["end"]
        assert 0 <= each["confidence"] <= 1
    assert " ".join(each["text"] for each in value["segments"] if each["text"]) == value["text"]


def test_txt_is_a_line() -> None:
    assert to_txt(transcript_of(TURN_ON, [], evenly_spoken("THE LIGHTS"))) == "TURN ON THE LIGHTS\n"
    assert to_txt(transcript_of()) == "\n"


def test_json_as_it_reads() -> None:
    segment = Segment(0.0, 1.3, [reading(TURN_ON, -0.5), reading([TURN_ON[0]._replace(confidence=0.04)], -3.14159)])
    assert json.loads(to_json(Transcript(Path("a.wav"), 1.3, [segment]))) == {
        "audio": "a.wav",
        "duration": 1.3,
        "text": "TURN ON",
        "confidence": 0.875,
        "words": [
            {
                "word": "TURN",
                "start": 0.24,
                "end": 0.52,
                "confidence": 0.91,
                "characters": [["T", 0.24, 0.31], ["U", 0.31, 0.38], ["R", 0.38, 0.45], ["N", 0.45, 0.52]],
            },
            {
                "word": "ON",
                "start": 0.68,
                "end": 0.8,
                "confidence": 0.875,
                "characters": [["O", 0.68, 0.74], ["N", 0.74, 0.8]],
            },
        ],
        "segments": [
            {
                "start": 0.0,
                "end": 1.3,
                "text": "TURN ON",
                "confidence": 0.875,
                "readings": [
                    {"text": "TURN ON", "confidence": 0.875, "score": -0.5},
                    {"text": "TURN", "confidence": 0.04, "score": -3.142},
                ],
            }
        ],
    }


def test_json_of_one_reading_lists_no_readings() -> None:
    value = json.loads(to_json(transcript_of(TURN_ON)))
    assert value["segments"][0].keys() == {"start", "end", "text", "confidence"}


def test_json_is_as_sure_as_its_least_certain_segment() -> None:
    transcript = transcript_of(TURN_ON, [spoken_word("NOW", 1.0, 1.2, 0.5)], evenly_spoken("THEN", start=2.0))
    assert json.loads(to_json(transcript))["confidence"] == 0.5
    assert json.loads(to_json(transcript_of()))["confidence"] == 1.0


def test_json_is_utf8_whatever_the_name() -> None:
    words = [spoken_word("ÉTÉ", 0.0, 0.5)]
    assert "ÉTÉ" in to_json(transcript_of(words, audio="été.wav"))
    odd = to_json(transcript_of(words, audio=os.fsdecode(b"\xe9t\xe9.wav")))
    odd.encode("ascii")
    assert os.fsencode(json.loads(odd)["audio"]) == b"\xe9t\xe9.wav"


def test_srt_as_it_reads() -> None:
    lines = evenly_spoken("THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG")
    transcript = transcript_of(TURN_ON, [*(_later(word, 3661.0) for word in lines)], duration=3700.0)
    assert to_srt(transcript) == (
        "1\n00:00:00,240 --> 00:00:01,240\nTURN ON\n\n"
        "2\n01:01:01,000 --> 01:01:05,400\nTHE QUICK BROWN FOX\nJUMPS OVER THE LAZY DOG\n\n"
    )


def _later(word: Word, seconds: float) -> Word:
    return spoken_word(word.text, word.start + seconds, word.end + seconds)


def test_vtt_as_it_reads() -> None:
    words = evenly_spoken("Q&A <I> --> X")
    assert to_vtt(transcript_of(words, duration=9.0)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.900\nQ&amp;A &lt;I&gt; --&gt; X\n\n"
    )


def test_an_arrow_in_srt_ends_no_cue() -> None:
    assert "A -- > B" in to_srt(transcript_of(evenly_spoken("A --> B")))


def test_nothing_said() -> None:
    nothing = transcript_of([])
    assert to_srt(nothing) == to_ctm(nothing, "a") == ""
    assert to_vtt(nothing) == "WEBVTT\n\n"
    assert to_tsv(nothing) == "start\tend\ttext\n"


def test_tsv_as_it_reads() -> None:
    assert to_tsv(transcript_of(evenly_spoken("A\\N B"), duration=9.0)) == "start\tend\ttext\n0\t1000\tA\\\\N B\n"


def test_ctm_as_it_reads() -> None:
    assert to_ctm(transcript_of(TURN_ON), "my talk") == (
        "my_talk 1 0.240 0.280 TURN 0.9100\nmy_talk 1 0.680 0.120 ON 0.8750\n"
    )


@pytest.mark.parametrize(("name", "expected"), [("a b\tc\n", "a_b_c_"), (";;a", "__a"), ("été/1", "été/1")])
def test_ctm_names(name: str, expected: str) -> None:
    assert ctm_name(name) == expected


def test_ctm_is_sorted_and_has_no_spaces_in_words() -> None:
    late, early = spoken_word("B C", 1.0, 2.0), spoken_word("A", 0.5, 0.6)
    assert [each.word for each in parse_ctm(to_ctm(transcript_of([late, early]), "x"))] == ["A", "B_C"]


def test_every_format_ends_its_lines_with_lf_alone() -> None:
    for output_format in get_args(Format):
        text = render(transcript_of(TURN_ON), output_format, "a")
        assert "TURN" in text
        assert text.endswith("\n")
        assert "\r" not in text

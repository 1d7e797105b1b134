"""Transcripts of other tools are read, and each hypothesis finds its reference."""

from pathlib import Path

import pytest

from ds2_jax.evaluation.transcript_files import HYPOTHESIS_KEYS, IGNORED, REFERENCE_KEYS, read_transcripts
from ds2_jax.evaluation.transcript_pairs import Pairs, pair
from ds2_jax.system.errors import InputError


def paired(folder: Path, references: tuple[str, str], hypotheses: tuple[str, str]) -> Pairs:
    (folder / "said").mkdir(exist_ok=True)
    said, heard = folder / "said" / references[0], folder / hypotheses[0]
    said.write_text(references[1], encoding="utf-8")
    heard.write_text(hypotheses[1], encoding="utf-8")
    return pair(read_transcripts(said, REFERENCE_KEYS), read_transcripts(heard, HYPOTHESIS_KEYS))


def texts(found: Pairs) -> list[tuple[str, str, str]]:
    return [(next(filter(None, text.names)), " ".join(text.text.split()), heard) for text, heard in found.pairs]


MANIFEST = (
    '{"audio": "a/x.wav", "transcript": "ONE", "id": "u1", "speaker": "anna", "duration": 1.5}\n'
    '{"audio": "a/y.wav", "transcript": "TWO", "id": "u2"}\n'
)
EXPECTED = [("u1", "ONE", "WON"), ("u2", "TWO", "TO")]


@pytest.mark.parametrize(
    "hypotheses",
    [
        ("h.jsonl", '{"id": "u2", "text": "TO"}\n{"id": "u1", "text": "WON"}\n'),
        (
            "h.jsonl",
            '{"id": "u2", "reference": "TWO", "hypothesis": "TO", "audio": "q"}\n{"id": "u1", "hypothesis": "WON"}',
        ),
        ("h.txt", '{"id": "u2", "pred_text": "TO", "text": "TWO"}\n{"id": "u1", "pred_text": "WON", "text": "ONE"}'),
        ("h.txt", "u2 TO\nu1\tWON\n"),
        ("h.txt", "WON (u1)\nTO (u2)\n"),
        ("h.trn", "WON (u1)\n\nTO (u2)\n"),
        ("h.ctm", ";; made by hand\nu1 1 0.5 0.2 WON 0.9\nu2 1 0.1 0.2 TO\n"),
    ],
)
def test_a_manifest_is_compared_with_every_form(tmp_path: Path, hypotheses: tuple[str, str]) -> None:
    found = paired(tmp_path, ("said.jsonl", MANIFEST), hypotheses)
    assert texts(found) == EXPECTED
    assert found.missing == []
    assert (found.pairs[0][0].speaker, found.pairs[0][0].end) == ("anna", 1.5)


@pytest.mark.parametrize("audio", ["a/{}.wav", "/elsewhere/{}.flac"])
def test_output_of_transcribe_is_matched_by_path_or_name_of_the_file(tmp_path: Path, audio: str) -> None:
    lines = "".join(
        f'{{"audio": "{audio.format(each)}", "text": "{text}"}}\n' for each, text in (("y", "TO"), ("x", "WON"))
    )
    found = paired(tmp_path, ("said.jsonl", MANIFEST), ("h.jsonl", lines))
    assert [(said, heard) for _, said, heard in texts(found)] == [("ONE", "WON"), ("TWO", "TO")]


def test_lines_without_names_are_matched_by_their_places(tmp_path: Path) -> None:
    found = paired(tmp_path, ("a.txt", "one two\n\nthree\n"), ("b.txt", "one\n\nthree\n"))
    assert texts(found) == [("line 1", "one two", "one"), ("line 2", "", ""), ("line 3", "three", "three")]
    with pytest.raises(InputError, match=r"b.txt must have as many lines as .*a.txt, 3, .*, got 2\. Let"):
        paired(tmp_path, ("a.txt", "one two\n\nthree\n"), ("b.txt", "one\n\n"))


def test_first_words_are_names_if_both_files_have_the_same_and_each_once(tmp_path: Path) -> None:
    found = paired(tmp_path, ("a.txt", "u1 one\nu2 two\n"), ("b.txt", "u2\nu1 won\n"))
    assert texts(found) == [("u1", "one", "won"), ("u2", "two", "")]
    found = paired(tmp_path, ("a.txt", "go left\ngo right\n"), ("b.txt", "go right\ngo left\n"))
    assert texts(found) == [("line 1", "go left", "go right"), ("line 2", "go right", "go left")]
    assert found.matched == "line"


def test_first_words_that_are_mostly_the_same_are_names(tmp_path: Path) -> None:
    found = paired(tmp_path, ("a.txt", "u1 one\nu2 two\nu3 three\n"), ("b.txt", "u3 tree\nu1 won\n"))
    assert texts(found) == [("u1", "one", "won"), ("u2", "two", ""), ("u3", "three", "tree")]
    assert (found.missing, found.matched) == (["u2"], "name")
    found = paired(tmp_path, ("a.txt", "anna one\nben two\n"), ("b.txt", "ben to\nanna won\n"))
    assert texts(found) == [("anna", "one", "won"), ("ben", "two", "to")]
    with pytest.raises(InputError, match=r"b.txt, line 2 must name an utterance of .*a.txt, got u4; 1 of 2"):
        paired(tmp_path, ("a.txt", "u1 one\nu2 two\n"), ("b.txt", "u1 one\nu4 two\n"))
    with pytest.raises(InputError, match=r"b.txt must have the names of .*a.txt, got '?1 of 3 in common"):
        paired(tmp_path, ("a.txt", "u1 a\nu2 b\nu3 c\n"), ("b.txt", "u1 a\nu4 b\nu5 c\n"))


def test_segments_of_a_file_and_paths_are_names(tmp_path: Path) -> None:
    rows = [
        f'{{"audio_filepath": "t.wav", "offset": {place}, "text": "{text}"}}\n' for place, text in ((0, 1), (2.5, 2))
    ]
    found = paired(tmp_path, ("a.jsonl", "".join(rows)), ("b.jsonl", "".join(reversed(rows))))
    assert texts(found) == [("t.wav", "1", "1"), ("t.wav at 2.5 s", "2", "2")]
    found = paired(tmp_path, ("said.jsonl", MANIFEST), ("h.txt", "/audio/y.wav TO\n/audio/x.wav WON\n"))
    assert [heard for _, heard in found.pairs] == ["WON", "TO"]


def test_what_was_not_recognised_is_named_and_counts(tmp_path: Path) -> None:
    found = paired(tmp_path, ("said.jsonl", MANIFEST), ("h.trn", "WON (u1)\n"))
    assert texts(found) == [("u1", "ONE", "WON"), ("u2", "TWO", "")]
    assert found.missing == ["u2"]


STM = """\
;; LABELS
talk 1 anna 0.00 2.00 <o,f0> one two
talk 1 inter_segment_gap 2.00 3.00 <o,f0> ignore_time_segment_in_scoring
talk 1 ben 3.00 5.00 three
other A ben 0 1
"""


def test_words_go_to_the_segment_of_their_middle_or_to_the_nearest(tmp_path: Path) -> None:
    ctm = """\
talk 1 1.90 0.18 TWO
talk 1 0.10 0.30 ONE
talk 1 2.40 0.30 NOISE
talk 1 2.95 0.30 THREE
talk 1 6.00 0.30 MORE
"""
    found = paired(tmp_path, ("a.stm", STM), ("b.ctm", ctm))
    assert texts(found) == [
        ("talk-1-anna-0.00-2.00", "one two", "ONE TWO"),
        ("talk-1-ben-3.00-5.00", "three", "THREE MORE"),
        ("other-A-ben-0.00-1.00", "", ""),
    ]
    assert (found.ignored, found.missing) == (1, [])
    assert [text.speaker for text, _ in found.pairs] == ["anna", "ben", "ben"]


def test_recordings_of_ctm_files_are_texts_and_their_channels_too(tmp_path: Path) -> None:
    said = "talk A 1.0 0.5 one\ntalk A 0.0 0.5 zero\ntalk B 0.2 0.5 no\n"
    found = paired(tmp_path, ("a.ctm", said), ("b.ctm", "talk A 0.0 0.5 one\n"))
    assert texts(found) == [("talk-A", "zero one", "one"), ("talk-B", "no", "")]


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        (("a.trn", ";; a comment\nx (u1)\ny (u1)"), ("b.trn", "x (u1)"), r"a.trn, line 3 must have a name of its own"),
        (("a.trn", "x (u1)"), ("b.trn", "x (u1)\nx (u9)"), r"b.trn, line 2 must name an utterance .*, got u9; 1"),
        (("a.trn", "x u1"), ("b.trn", "x (u1)"), r"a.trn, line 1 must be WORDS \(NAME\), got 'x u1'"),
        (("a.trn", "{ x / y } z (u1)"), ("b.trn", "x (u1)"), r"line 1 must have no alternatives in braces"),
        (("a.stm", STM), ("b.txt", "one"), r"b.txt must be a CTM file, since the references are segments"),
        (("a.stm", STM), ("b.ctm", "talk 2 0 1 x"), r"b.ctm, line 1 must be of a recording and channel of .*'2'\)"),
        (("a.stm", "talk 1 anna 2 1 x"), ("b.ctm", "talk 1 0 1 x"), r"must have its end at or after its start, got"),
        (("a.stm", "talk 1 anna x 1 x"), ("b.ctm", "talk 1 0 1 x"), r"must have times of 0 or more seconds, got 'x'"),
        (("a.stm", "talk 1 anna"), ("b.ctm", "talk 1 0 1 x"), r"line 1 must be RECORDING CHANNEL SPEAKER START END"),
        (("a.txt", "x"), ("b.ctm", "talk 1 0 1"), r"b.ctm, line 1 must be RECORDING CHANNEL START DURATION WORD"),
        (("a.txt", "x"), ("b.ctm", "talk 1 nan 1 x"), r"b.ctm, line 1 must have times of 0 or more seconds, got 'nan'"),
        (("a.jsonl", '{"id": "a"}'), ("b.txt", "a x"), r"line 1 must have one of the keys reference, transcript, text"),
        (("a.jsonl", '{"id": "a", "text": [1]}'), ("b.txt", "a x"), r"line 1: text must be a string, got \[1\]"),
        (("a.jsonl", '{"id": "a", "text": "x"'), ("b.txt", "a x"), r"line 1 must be a JSON object"),
        (("a.jsonl", '{"text": "x"}'), ("b.jsonl", '{"text": "x"}'), r"a.jsonl, line 1 must have a name, such"),
        (("a.txt", "x"), ("b.stm", STM), r"b.stm must be transcripts, not segments"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, references: tuple[str, str], hypotheses: tuple[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        paired(tmp_path, references, hypotheses)


def test_a_recogniser_that_heard_nothing_is_scored(tmp_path: Path) -> None:
    assert texts(paired(tmp_path, ("a.txt", "x y\n"), ("b.txt", "\n"))) == [("line 1", "x y", "")]
    found = paired(tmp_path, ("said.jsonl", MANIFEST), ("b.ctm", ";; nothing\n"))
    assert (texts(found), found.missing) == ([("u1", "ONE", ""), ("u2", "TWO", "")], ["u1", "u2"])


def test_the_same_path_comes_before_the_same_id_of_another(tmp_path: Path) -> None:
    said = '{"id": "1", "audio": "2.wav", "text": "a"}\n{"id": "2", "audio": "1.wav", "text": "b"}\n'
    found = paired(
        tmp_path, ("a.jsonl", said), ("b.jsonl", '{"audio": "1.wav", "text": "b"}\n{"audio": "2.wav", "text": "a"}')
    )
    assert texts(found) == [("1", "a", "a"), ("2", "b", "b")]


def test_ids_that_a_manifest_would_give_are_found(tmp_path: Path) -> None:
    said = '{"audio": "s1/001.wav", "text": "a"}\n{"audio": "s2/001.wav", "text": "b"}\n'
    heard = (
        '{"id": "001-2", "audio": "/x/s2/001.wav", "text": "b"}\n{"id": "001", "audio": "/x/s1/001.wav", "text": "a"}\n'
    )
    assert [(text.text, heard) for text, heard in paired(tmp_path, ("a.jsonl", said), ("b.jsonl", heard)).pairs] == [
        ("a", "a"),
        ("b", "b"),
    ]


def test_one_key_holds_the_texts_and_lines_of_errors_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = '{"id": "a", "text": "one", "pred_text": "won"}\n{"id": "b", "text": "two"}\n'
    with pytest.raises(InputError, match=r"b.jsonl, line 2: pred_text must be present, as in other lines"):
        paired(tmp_path, ("a.jsonl", mixed), ("b.jsonl", mixed))
    found = paired(
        tmp_path, ("a.jsonl", mixed), ("b.jsonl", '{"id": "a", "text": "x"}\n{"id": "b", "error": "no file"}\n')
    )
    assert found.missing == ["b"]
    assert "b.jsonl, line 2 has the error no file instead of a text" in caplog.text


def test_words_in_a_gap_are_not_those_of_an_ignored_segment(tmp_path: Path) -> None:
    found = paired(
        tmp_path, ("a.stm", STM), ("b.ctm", "talk 1 2.40 0.1 in\ntalk 1 3.05 0.1 THREE\nother A 1.5 0.1 far\n")
    )
    assert found.ignored == 1
    found = paired(tmp_path, ("a.stm", "t 1 a 0 1 x\nt 1 a 5 6 " + IGNORED + "\n"), ("b.ctm", "t 1 4 0.1 y\n"))
    assert (texts(found), found.ignored) == ([("t-1-a-0.00-1.00", "x", "y")], 0)


def test_nothing_is_written_as_at(tmp_path: Path) -> None:
    assert texts(paired(tmp_path, ("a.trn", "x @ y (u)"), ("b.trn", "@ (u)"))) == [("u", "x y", "")]


def test_paths_with_spaces_stand_before_a_tab(tmp_path: Path) -> None:
    found = paired(tmp_path, ("a.jsonl", '{"audio": "b c.wav", "text": "x"}'), ("b.txt", "data/b c.wav\tgood day\n"))
    assert texts(found) == [("b c.wav", "x", "good day")]

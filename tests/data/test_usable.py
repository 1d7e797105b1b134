"""Utterances that can be used, and the problems of the others."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.config.settings import ENGLISH
from ds2_jax.data.manifest import (
    Problem,
    Utterance,
    count_reasons,
    write_problems,
)
from ds2_jax.data.usable import check_utterances, usable_utterances
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(160), 16_000)
    return path


def check(*utterances: Utterance, time_reduction: int = 2) -> list[tuple[str, str, str]]:
    problems = check_utterances(
        utterances,
        Alphabet(ENGLISH),
        sample_rate=16_000,
        hop_length=160,
        time_reduction=time_reduction,
        min_duration=0.1,
        max_duration=20,
    )
    return [(problem.id, problem.reason, problem.detail) for problem in problems]


def test_a_segment_must_lie_inside_its_file(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(16_000), 16_000)
    found = check(
        Utterance(audio, 0.5, "A", "first", offset=0.0),
        Utterance(audio, 0.505, "A", "rounded", offset=0.5),
        Utterance(audio, 0.52, "A", "beyond", offset=0.5, place="line 3"),
        Utterance(audio, 1.0, "A", "after", offset=7.0),
        Utterance(tmp_path / "none.wav", 1.0, "A", "missing", offset=1.0),
    )
    outside = "outside the recording"
    rule = "hold the segment from 0.5 to 1.02 s, got 1.000 s. Correct offset and duration in line 3 of the manifest."
    assert found[0] == ("beyond", outside, f"{audio} must {rule}")
    assert [(name, reason) for name, reason, _ in found[1:]] == [("after", outside), ("missing", "missing audio")]


def test_check_names_each_kind_of_bad_utterance(audio: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"")
    found = check(
        Utterance(audio, 1.0, "it's fine", "good"),
        Utterance(tmp_path / "none.wav", 1.0, "YES", "missing"),
        Utterance(tmp_path, 1.0, "YES", "folder"),
        Utterance(broken, 0.0, "YES", "unreadable"),
        Utterance(audio, 1.0, "ROOM 42 É", "unknown"),
        Utterance(audio, 1.0, " \n", "empty"),
        Utterance(audio, 0.09, "A", "short"),
        Utterance(audio, 20.01, "A", "long"),
        Utterance(audio, 0.0, "A", "zero"),
    )
    assert [(name, reason) for name, reason, _ in found] == [
        ("missing", "missing audio"),
        ("folder", "missing audio"),
        ("unreadable", "unreadable audio"),
        ("unknown", "unknown characters"),
        ("empty", "empty transcript"),
        ("short", "duration outside the limits"),
        ("long", "duration outside the limits"),
        ("zero", "duration outside the limits"),
    ]
    details = {name: detail for name, _, detail in found}
    assert details["missing"] == f"{tmp_path / 'none.wav'} does not exist"
    assert details["folder"] == f"{tmp_path} is not a file"
    assert details["unreadable"].startswith(f"{broken} must hold audio, got an empty file.")
    assert details["unknown"] == "['2', '4', 'É'] in 'ROOM 42 É'"
    assert details["long"] == "20.01 s, limits 0.1 to 20 s"


@pytest.mark.parametrize(
    ("time_reduction", "num_frames", "fits"), [(2, 14, False), (2, 15, True), (4, 28, False), (4, 29, True)]
)
def test_check_counts_the_output_frames_that_ctc_needs(
    audio: Path, time_reduction: int, num_frames: int, fits: bool
) -> None:
    utterance = Utterance(audio, (num_frames - 1) * 0.01 + 0.005, "ALLOWED", "a")  # 7 letters, L twice: 8 frames
    found = check(utterance, time_reduction=time_reduction)
    detail = "'ALLOWED' must have 8 output frames, got 7"
    assert found == ([] if fits else [("a", "too few output frames", detail)])


UTTERANCES = [Utterance(Path(f"{name}.wav"), 1.0, "YES", name) for name in "abcdef"]
PROBLEMS = [
    Problem("a", "a.wav", "missing audio", "a.wav does not exist"),
    Problem("b", "b.wav", "empty transcript", "''"),
    Problem("d", "d.wav", "missing audio", "d.wav does not exist"),
    Problem("e", "e.wav", "missing audio", "e.wav does not exist"),
]


def test_bad_utterances_stop_with_counts_and_examples() -> None:
    message = (
        "set.jsonl must hold only usable utterances, got 4 of 6 that are not: 3 missing audio, 1 empty transcript. "
        "Correct them, or leave them out with --data.on-bad-utterance skip. The first: "
        "a (missing audio: a.wav does not exist); b (empty transcript: ''); d (missing audio: d.wav does not exist)."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        usable_utterances(UTTERANCES, PROBLEMS, Alphabet(ENGLISH), on_bad_utterance="error", manifest=Path("set.jsonl"))


def test_all_unknown_characters_are_listed_and_texts_cut(audio: Path) -> None:
    utterances = [
        Utterance(audio, 1.0, "É" * 10**6, "a"),
        Utterance(Path("x" * 10**6), 1.0, "42", "b" * 10**6),
        *(Utterance(audio, 1.0, f"ROOM {number}", f"c{number}") for number in range(5)),
    ]
    problems = check_utterances(
        utterances,
        Alphabet(ENGLISH),
        sample_rate=16_000,
        hop_length=160,
        time_reduction=2,
        min_duration=0.1,
        max_duration=20,
    )
    assert problems[1].reason == "missing audio"
    with pytest.raises(InputError) as error:
        usable_utterances(
            [*utterances, UTTERANCES[5]],
            problems,
            Alphabet(ENGLISH),
            on_bad_utterance="error",
            manifest=Path("set.jsonl"),
        )
    message = str(error.value)
    advice = "Correct them, or leave them out with --data.on-bad-utterance skip, "
    advice += "or add ['0', '1', '2', '3', '4', 'É'] to --data.alphabet or --data.remove (see data alphabet)"
    assert f"{advice}. The first: a (unknown characters: ['É'] in 'ÉÉ" in message
    assert len(message) < 1000


def test_bad_utterances_are_left_out_on_request() -> None:
    usable = usable_utterances(
        UTTERANCES, PROBLEMS, Alphabet(ENGLISH), on_bad_utterance="skip", manifest=Path("set.jsonl")
    )
    assert [utterance.id for utterance in usable] == ["c", "f"]
    assert (
        usable_utterances(usable, [], Alphabet(ENGLISH), on_bad_utterance="error", manifest=Path("set.jsonl")) == usable
    )


def test_a_manifest_of_only_bad_utterances_stops_always() -> None:
    message = (
        "set.jsonl must hold at least one usable utterance, got 1 of 1 that are not: 1 missing audio. Correct them. "
        "The first: a (missing audio: a.wav does not exist)."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        usable_utterances(
            UTTERANCES[:1], PROBLEMS[:1], Alphabet(ENGLISH), on_bad_utterance="skip", manifest=Path("set.jsonl")
        )


def test_problems_are_counted_and_written(tmp_path: Path) -> None:
    assert count_reasons(PROBLEMS) == "3 missing audio, 1 empty transcript"
    write_problems(tmp_path / "skipped.jsonl", PROBLEMS)
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"id": "b", "audio": "b.wav", "reason": "empty transcript", "detail": "''"}
    assert len(lines) == 4

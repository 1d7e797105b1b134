"""corpora/build.py: recordings paired with transcripts, measured, drawn; what was left out is named and counted."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.corpora.build import Gathered, building, finish, gather, in_parallel, measure, pair, report
from ds2_jax.data.manifest import Problem, Utterance, read_manifest


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(4000, np.int16), 16_000)
    return path


def found(audio: Path, transcript: str = "YES", speaker: str = "") -> Utterance:
    return Utterance(audio, 0.0, transcript, "a", speaker)


def test_pair_gives_each_its_transcript_and_names_the_rest() -> None:
    first, second = (Utterance(Path(name), 0.0, "", name) for name in ("x.wav", "y.wav"))
    paired = pair([("x", first), ("y", second)], {"z": "GO", "x": "NO"})
    assert paired == [
        Utterance(Path("x.wav"), 0.0, "NO", "x.wav"),
        Problem("y.wav", "y.wav", "missing transcript", "y.wav has no transcript"),
        Problem("z", "", "missing audio", "no recording of 'GO'"),
    ]


def test_measure(audio: Path) -> None:
    assert measure(found(audio)) == Utterance(audio, 0.25, "YES", "a")
    problem = Problem("b", "", "missing audio", "")
    assert measure(problem) is problem


@pytest.mark.parametrize(
    ("transcript", "speaker", "reason"),
    [
        ("", "", "empty transcript"),
        (" \n", "", "empty transcript"),
        ("A\0B", "", "unreadable transcript"),
        ("YES", "\udce9", "unreadable audio"),
    ],
)
def test_measure_leaves_out_what_no_manifest_can_hold(audio: Path, transcript: str, speaker: str, reason: str) -> None:
    problem = measure(found(audio, transcript, speaker))
    assert isinstance(problem, Problem)
    assert problem.reason == reason


def test_measure_names_the_fault_of_the_audio(audio: Path, tmp_path: Path) -> None:
    audio.write_bytes(audio.read_bytes()[:-100])
    problem = measure(found(audio))
    assert isinstance(problem, Problem)
    assert problem.reason == "unreadable audio"
    assert problem.detail.startswith(f"{audio} must hold the 8000 bytes of audio its header promises, got 7900.")


def test_measure_leaves_out_more_than_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(4000 * 3601, np.int16), 4000)
    problem = measure(found(path))
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.detail) == ("duration outside the limits", "3601.0 s, a manifest takes 3600 s")


def test_parallel_work_keeps_the_order() -> None:
    assert in_parallel(range(100), lambda item: -item, title="", unit="", num_workers=8) == [-i for i in range(100)]


def test_what_is_left_out_is_named_as_it_will_be_found(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data/corpus"
    with building(folder) as partial:
        partial.mkdir()
        (partial / "b\udce9.wav").write_bytes(audio.read_bytes())
        broken = partial / "c.wav"
        broken.write_bytes(b"RIFF")
        items = [found(audio), found(partial / "b\udce9.wav"), found(broken)]
        splits = {"all": gather(items, measure, title="")}
        others = [Problem("d.tgz", "d.tgz", "unreadable archive", "cut short")]
        finish(partial, folder, splits, {}, others)
    report(folder, "a corpus", splits, others)
    assert [row.audio for row in read_manifest(folder / "all.jsonl")] == [audio]
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    assert [(row["audio"], row["reason"]) for row in rows] == [
        ("d.tgz", "unreadable archive"),
        (str(folder / "b\\udce9.wav"), "unreadable audio"),
        (str(folder / "c.wav"), "unreadable audio"),
    ]
    assert ".partial" not in json.dumps(rows)
    named = f"; {folder}/left_out.jsonl names them\n"
    assert capsys.readouterr().err == (
        f"{folder}: a corpus\n  all  0.00 h  1 utterances  0 speakers  1 words\n"
        f"       left out 2: 2 unreadable audio{named}  left out, of no split: 1: 1 unreadable archive{named}"
    )


def test_speakers_are_counted_once(audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path, "x", {"all": Gathered([found(audio, speaker=name) for name in ("anna", "ben", "anna", "")])})
    assert "  4 utterances  2 speakers  4 words\n" in capsys.readouterr().err

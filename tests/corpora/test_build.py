"""Pairing, measuring, reporting, stopped runs, the journal, and parallel items."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ds2_jax.corpora.build import (
    ITEMS_AHEAD,
    Gathered,
    Journal,
    begin,
    building,
    finish,
    gather,
    in_parallel,
    measure,
    pair,
    report,
)
from ds2_jax.data.manifest import Problem, Utterance, read_manifest
from ds2_jax.system import locks
from ds2_jax.system.errors import InputError

SOURCE = {"release": 2, "language": "fr"}


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
    assert problem.detail.startswith(f"{audio} must hold the 8000 bytes of audio that its header states, got 7900.")


def test_measure_leaves_out_more_than_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(4000 * 3601, np.int16), 4000)
    problem = measure(found(path))
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.detail) == (
        "duration outside the limits",
        "3601.0 s, but a manifest allows at most 3600 s",
    )


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
        f"       left out 2: 2 unreadable audio{named}  left out, in no split: 1: 1 unreadable archive{named}"
    )


def test_speakers_are_counted_once(audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path, "x", {"all": Gathered([found(audio, speaker=name) for name in ("anna", "ben", "anna", "")])})
    assert "  4 utterances  2 speakers  4 words\n" in capsys.readouterr().err


def leave(folder: Path, source: dict[str, object] | None) -> None:
    """Makes the folder of a run that was stopped after it wrote source.json."""
    with contextlib.suppress(KeyboardInterrupt), building(folder, source) as partial:
        begin(partial, SOURCE)
        (partial / "work").touch()
        raise KeyboardInterrupt


def test_what_a_stopped_run_left_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "corpus", SOURCE)
    capsys.readouterr()
    with building(tmp_path / "corpus", {"release": 2}) as partial:  # a source with fewer entries agrees
        assert (partial / "work").exists()
        assert partial == tmp_path / "corpus.partial"
    assert capsys.readouterr().err == f"{partial}: continuing the work of an interrupted run\n"


@pytest.mark.parametrize("source", [{"release": 3}, {"release": 2, "speakers": 5}, None])
def test_what_another_run_left_is_deleted(tmp_path: Path, source: dict[str, object] | None) -> None:
    leave(tmp_path / "corpus", SOURCE)
    with building(tmp_path / "corpus", source) as partial:
        assert not partial.exists()


def test_what_says_nothing_of_its_source_is_deleted(tmp_path: Path) -> None:
    leave(tmp_path / "corpus", None)
    assert list(tmp_path.iterdir()) == []
    for content in ("", "[]", "{"):
        leave(tmp_path / "corpus", SOURCE)
        (tmp_path / "corpus.partial/source.json").write_text(content)
        with building(tmp_path / "corpus", SOURCE) as partial:
            assert not partial.exists()


def fail() -> float:
    raise AssertionError("done twice")


def test_journal_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        assert journal.once("a", lambda: 1.5) == journal.once("a", fail) == 1.5
    with Journal(path) as journal:
        assert journal.once("a", fail) == 1.5
        assert journal.once("b\n\u2028\x85", lambda: "no é") == "no é"
    with Journal(path) as journal:
        assert journal.once("b\n\u2028\x85", fail) == "no é"


def test_journal_cut_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1.5}\n{"b": 12')
    with Journal(path) as journal:
        assert journal.once("a", fail) == 1.5
        assert journal.once("b", lambda: 123.5) == 123.5
    assert path.read_text() == '{"a": 1.5}\n{"b": 123.5}\n'


def test_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no/journal\.jsonl must be writable, got: No such file"):
        Journal(tmp_path / "no/journal.jsonl")


def test_items_in_parallel_keep_their_order() -> None:
    count = 3 * ITEMS_AHEAD
    assert in_parallel(range(count), lambda item: -item, title="x", unit="y") == [-item for item in range(count)]


def test_an_error_ends_the_work() -> None:
    done: list[int] = []
    failed = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            failed.set()
            raise InputError("no")
        assert failed.wait(10)
        done.append(item)
        return item

    with pytest.raises(InputError, match="no"):
        in_parallel(range(10 * ITEMS_AHEAD), make, title="x", unit="y", num_workers=2)
    assert len(done) < 2 * ITEMS_AHEAD


@pytest.mark.parametrize(
    "line", ["", "{", "[" * 100_000, "[]", '{"a": null}', '{"a": NaN}', '{"a": -1}', '{"a": true}']
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"a": 1.5}}\n{line}\n')
    with pytest.raises(InputError, match=f"^{path}, line 2 must .* Delete the line: the next run repeats its work.$"):
        Journal(path)


def test_a_journal_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=f"^{tmp_path}/journal.jsonl must be UTF-8 text"):
        Journal(tmp_path / "journal.jsonl")


def test_folders_that_were_made_are_removed_again_if_they_stay_empty(tmp_path: Path) -> None:
    for root in (tmp_path / "new/er", tmp_path):
        with pytest.raises(InputError, match=r"^no$"), building(root / "corpus"):
            raise InputError("no")
        assert list(tmp_path.iterdir()) == []
    with building(tmp_path / "new/corpus") as partial:
        partial.mkdir()
        finish(partial, tmp_path / "new/corpus", {}, {})
    assert (tmp_path / "new/corpus").is_dir()


def test_a_parent_that_another_process_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, root = locks.locked, tmp_path / "root"

    @contextlib.contextmanager
    def waiting(path: Path, **calls: Any) -> Iterator[None]:
        with locked(path, **calls):
            monkeypatch.setattr(locks, "locked", locked)
            root.rmdir()
            yield

    monkeypatch.setattr(locks, "locked", waiting)
    with building(root / "corpus") as partial:
        partial.mkdir()
        (partial / "x").touch()
        assert partial.is_dir()

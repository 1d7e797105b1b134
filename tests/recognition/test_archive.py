"""Archives: a Beam pipeline gives what `transcribe` gives, and an interrupted one goes on where it stopped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.recognition import archive
from tests.serving.servers import talkative, write_talk
from tests.small_runs import RATE, SMALL_CONFIG

NUM_FILES = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = talkative(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG)._model.path
    assert path is not None
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings of different lengths; one is damaged."""
    folder = tmp_path_factory.mktemp("archive")
    for index in range(NUM_FILES):
        write_talk(folder / f"{index}.wav", 1.0 + 2 * index, index)
    (folder / "2.wav").write_bytes(b"RIFF and no more")
    return folder


@pytest.fixture(autouse=True)
def two_in_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_FILES", 2)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def results(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.jsonl")) for row in lines(path.read_text())]


def words(run: Path, source: Path | str, out: Path, *others: str) -> list[str]:
    return ["transcribe", str(run), str(source), "--output-dir", str(out), "--beam-runner", "DirectRunner", *others]


def test_a_pipeline_gives_what_transcribe_gives(
    run: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["transcribe", str(run), str(recordings), "--format", "json"]) == 1
    expected = lines(capsys.readouterr().out)
    assert cli.main(words(run, recordings, tmp_path / "out", "--", "--direct_num_workers=1")) == 1
    found = results(tmp_path / "out")
    assert [Path(str(row["audio"])).name for row in found] == [f"{index}.wav" for index in range(NUM_FILES)]
    error = found.pop(2)
    assert set(error) == {"audio", "error"}
    assert str(error["error"]).startswith(f"{recordings}/2.wav must be")
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    assert [row["words"] for row in found] == [row["words"] for row in expected]
    assert "4 recordings, 20.0 s of audio in" in (said := capsys.readouterr().err)
    assert "in 3 parts; 1 failed, see their lines" in said


def test_a_restart_does_what_is_missing(
    run: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(words(run, recordings, out)) == 1
    first, second, third = sorted(out.glob("*.jsonl"))
    content, times = second.read_bytes(), [path.stat().st_mtime_ns for path in (first, third)]
    second.unlink()
    assert cli.main(words(run, recordings, out)) == 1
    assert "2 of 3 parts are already finished" in capsys.readouterr().err
    assert second.read_bytes() == content
    assert times == [path.stat().st_mtime_ns for path in (first, third)]


def test_other_work_does_not_mix(
    run: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(words(run, recordings / "0.wav", out)) == 0
    assert cli.main(words(run, recordings / "0.wav", out)) == 0
    capsys.readouterr()
    for change in (words(run, recordings, out), words(run, recordings / "0.wav", out, "--num-best", "2")):
        assert cli.main(change) == 1
        rule = "be new, or hold parts of the same recordings, model and settings"
        assert (
            capsys.readouterr().err == f"error: --output-dir must {rule}, got others in {out}. Name another folder.\n"
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    assert cli.main(words(run, recordings, tmp_path / "mine")) == 1
    assert "--output-dir must be an empty or new folder, got " in capsys.readouterr().err


def test_manifests_and_data_sets_are_sources(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = write_talk(tmp_path / "a.wav", 6.0, 1)
    rows: list[dict[str, object]] = [
        {"audio": "a.wav"},
        {"audio": "a.wav", "offset": 2.0, "duration": 3.0, "id": "part/two"},
    ]
    manifest = tmp_path / "all.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["transcribe", str(run), str(manifest), "--format", "json"]) == 0
    expected = lines(capsys.readouterr().out)
    assert [(row["id"], row["duration"]) for row in expected] == [("a", 6.0), ("part/two", 3.0)]
    part = tmp_path / "part.wav"
    soundfile.write(part, soundfile.read(audio)[0][2 * RATE : 5 * RATE], RATE)
    assert cli.main(["transcribe", str(run), str(audio), str(part)]) == 0
    texts = [line.partition("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in expected] == texts
    assert cli.main(words(run, manifest, tmp_path / "out")) == 0
    assert results(tmp_path / "out") == expected
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps({"transcript": "GO"} | row) + "\n" for row in rows))
    assert cli.main(["data", "pack", str(labelled), "--out", str(tmp_path / "pack")]) == 0
    monkeypatch.chdir(tmp_path)
    assert cli.main(words(run, "tfds:pack#labelled", tmp_path / "packed")) == 0
    assert [(row["id"], row["text"]) for row in results(tmp_path / "packed")] == [
        (row["id"], row["text"]) for row in expected
    ]
    capsys.readouterr()
    assert cli.main(["transcribe", str(run), "tfds:pack#labelled"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"a\t{texts[0]}", f"part/two\t{texts[1]}"]


def test_a_file_named_as_standard_input(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_talk(tmp_path / "a.wav", 1.0, 1).rename(tmp_path / "-")
    Path("m.jsonl").write_text(json.dumps({"audio": "-", "id": "x"}))
    assert cli.main(["transcribe", str(run), "m.jsonl", "--format", "json"]) == 0
    assert [row["id"] for row in lines(capsys.readouterr().out)] == ["x"]


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a"])
def test_an_id_does_not_lead_out_of_the_folder(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_talk(tmp_path / "a.wav", 1.0, 1)
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "id": name}))
    out = tmp_path / "out"
    assert cli.main(["transcribe", str(run), str(tmp_path / "m.jsonl"), "--output-dir", str(out)]) == 1
    assert f"id must be a name inside --output-dir, got {name}. Rename it" in capsys.readouterr().err


def test_options_that_do_not_fit(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(run, "a.wav", tmp_path, "--format", "srt")) == 1
    assert "--format must be json with --beam-runner, got 'srt'. Leave it out." in capsys.readouterr().err
    assert cli.main(["transcribe", str(run), "a.wav", "--", "--x"]) == 1
    assert "--beam-options must be used with --beam-runner, got '--x'." in capsys.readouterr().err
    assert cli.main(words(run, "a.wav", tmp_path, '--beam-options=--x "y')) == 1
    assert "--beam-options must be words of a command line, got: No closing quotation." in capsys.readouterr().err


def test_an_option_that_beam_does_not_know_is_refused(
    run: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beam would only warn, and work with one process where two were meant."""
    command = words(
        run, recordings, tmp_path / "out", "--", "--direct_num_wrkers", "2", "--direct_running_mode", "in_memory"
    )
    assert cli.main(command) == 1
    assert "must be known to Beam, got --direct_num_wrkers. Correct them." in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_standard_input_and_no_folder_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(run, "-", tmp_path / "out")) == 1
    assert "AUDIO must name files with --beam-runner, got standard input." in capsys.readouterr().err
    assert cli.main(["transcribe", str(run), "a.wav", "--beam-runner", "DirectRunner"]) == 1
    assert "--output-dir must name a folder with --beam-runner, got none." in capsys.readouterr().err


@pytest.mark.slow
def test_several_workers_that_are_killed(run: Path, recordings: Path, tmp_path: Path) -> None:
    """Kills the command and its workers again and again; no part is lost, doubled or half written."""
    manifest = tmp_path / "many.jsonl"
    rows = [{"audio": str(recordings / f"{index % 5}.wav"), "id": f"{index}"} for index in range(600)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    several = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    command = [sys.executable, "main.py", *words(run, manifest, out, *several)]
    kills = 0
    while True:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        done, deadline = len(list(out.glob("*.jsonl"))), time.monotonic() + 300
        while process.poll() is None and (kills == 3 or len(list(out.glob("*.jsonl"))) == done):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if process.poll() is not None:
            break
        subprocess.run(["pkill", "--signal", str(int(signal.SIGKILL)), "--session", str(process.pid)], check=True)
        process.wait()
        kills += 1
        assert all(json.loads(line) for path in out.glob("*.jsonl") for line in path.read_text().splitlines())
    assert (process.returncode, kills) == (1, 3)
    assert [row["id"] for row in results(out)] == [row["id"] for row in rows]
    assert sum("error" in row for row in results(out)) == len(rows) // 5

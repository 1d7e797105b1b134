"""The tools accept a TensorFlow data set instead of a manifest, and report the same."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.curation.pack import pack
from ds2_jax.data.splits import read_utterances
from tests.small_runs import write_noise_manifest


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Makes a manifest, and the same utterances as a data set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    manifest = write_noise_manifest(tmp_path / "data", name="noise")
    pack((str(manifest),), str(tmp_path / "pack"))
    return str(manifest), f"tfds:{tmp_path / 'pack'}#noise"


@pytest.mark.parametrize("tool", ["stats", "alphabet", "check"])
def test_a_set_gives_the_report_of_its_manifest(
    tool: str, places: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    reports = []
    for place in places:
        assert cli.main(["data", tool, place]) == 0
        output = re.sub(r"checked in .*", "checked", capsys.readouterr().out)
        reports.append(re.sub(r" +", " ", output.replace(place, "PLACE").replace(Path(place).name, "PLACE")))
    assert reports[0] == reports[1]
    assert reports[0]


def test_a_preview_of_a_set_is_that_of_its_manifest(places: tuple[str, str], tmp_path: Path) -> None:
    for number, place in enumerate(places):
        assert cli.main(["data", "preview", place, "--out", str(tmp_path / str(number)), "--count", "1"]) == 0
    names = sorted(path.name for path in (tmp_path / "0").glob("*.wav"))
    assert len(names) == 2
    for name in names:
        ours, theirs = (soundfile.read(tmp_path / folder / name)[0] for folder in ("0", "1"))
        np.testing.assert_array_equal(theirs, ours)


def test_records_give_the_samples_of_their_files(places: tuple[str, str]) -> None:
    manifest, data_set = (read_utterances(Path(place)) for place in places)
    for ours, theirs in zip(manifest, data_set, strict=True):
        samples, rate = ours.samples()
        packed, packed_rate = theirs.samples()
        np.testing.assert_array_equal(packed, samples)
        assert packed_rate == rate


def test_manifests_of_a_set_list_its_records(
    places: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such manifests are read like any other, and move together with the set."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "merge", "tfds:pack#noise", *places, "--out", "all.jsonl"]) == 0
    assert cli.main(["data", "split", "tfds:pack#noise", "--out", ".", "--dev", "0", "--test", "0.5"]) == 0
    rows = [json.loads(line)["audio"] for line in Path("all.jsonl").read_text().splitlines()]
    assert rows[:3] == [f"tfds:pack#noise[{i}]" for i in range(3)]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("all.jsonl", "train.jsonl", "test.jsonl", "pack"):
        (tmp_path / name).rename(moved / name)
    monkeypatch.chdir("/")
    alone = read_utterances(Path(f"tfds:{moved / 'pack'}#noise"))
    listed = read_utterances(moved / "train.jsonl") + read_utterances(moved / "test.jsonl")
    assert sorted(each.id for each in listed) == [each.id for each in alone]
    for ours, theirs in zip(alone, sorted(listed, key=lambda each: each.id), strict=True):
        np.testing.assert_array_equal(theirs.read(16_000), ours.read(16_000))
    assert cli.main(["data", "check", str(moved / "train.jsonl"), "--test", str(moved / "test.jsonl")]) == 0


def test_packing_what_lists_records_packs_the_set(places: tuple[str, str], tmp_path: Path) -> None:
    assert cli.main(["data", "merge", places[1], "--out", str(tmp_path / "noise.jsonl")]) == 0
    pack((str(tmp_path / "noise.jsonl"),), str(tmp_path / "again"))
    packed = [read_utterances(Path(f"tfds:{tmp_path / name}#noise")) for name in ("pack", "again")]
    for ours, theirs in zip(*packed, strict=True):
        assert (theirs.id, theirs.duration) == (ours.id, ours.duration)
        np.testing.assert_array_equal(theirs.read(16_000), ours.read(16_000))
    [record, *_] = read_utterances(tmp_path / "noise.jsonl")
    copy = pickle.loads(pickle.dumps(record))  # as for Apache Beam's workers
    np.testing.assert_array_equal(copy.read(16_000), record.read(16_000))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("[3]", "be a record of tfds:PACK#noise, 0 to 2, got 3. Correct it."),
        ("", "name a record as tfds:NAME#SPLIT[NUMBER], got tfds:PACK#noise. Correct it."),
    ],
)
def test_a_record_that_is_not_there_is_named(
    name: str, message: str, places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "all.jsonl"
    row = {"audio": f"tfds:pack#noise{name}", "duration": 0.5, "transcript": "GO", "id": "a"}
    manifest.write_text(json.dumps(row))
    capsys.readouterr()
    assert cli.main(["data", "stats", str(manifest)]) == 1
    message = message.replace("PACK", str(tmp_path / "pack"))
    assert capsys.readouterr().err == f"error: {manifest}: the audio of a must {message}\n"

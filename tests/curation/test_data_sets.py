"""The tools accept a TensorFlow data set instead of a manifest, and report the same."""

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


@pytest.mark.parametrize("tool", ["merge", "split"])
def test_no_manifest_can_be_made_of_a_set(
    tool: str, places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(["data", tool, places[1], "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        f"error: MANIFEST must list audio files, got {places[1]}, which holds the audio itself. Use a slice of it in "
        "place of the new manifest: tfds:NAME#train[:90%].\n"
    )
    assert not (tmp_path / "out").exists()

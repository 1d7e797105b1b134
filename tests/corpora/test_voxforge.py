"""VoxForge from small submissions of the published layout, in a folder."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora import voxforge
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.corpora.voxforge_submissions import SPLITS, left_out, rows_of, submission, write_submission
from tests.speech import recording, seconds, tree, write_archive


def test_utterances_are_those_of_the_submissions(archives: Path, tmp_path: Path) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert folder == tmp_path / "data/voxforge"
    rows = {row.id: row for split in SPLITS for row in read_manifest(folder / f"{split}.jsonl")}
    assert len(rows) == 12 * 2
    row = rows["a-20080101-xyz/b0001.flac"]
    assert (row.transcript, row.speaker, row.duration) == ("OPEN THE DOOR", "a", seconds("OPEN THE DOOR"))
    assert row.audio == folder / "a-20080101-xyz/flac/b0001.flac"
    assert row.audio.read_bytes() == recording("OPEN THE DOOR")
    assert len(read_audio(rows["h-20080101-xyz/b0000.wav"].audio, 16_000)) == round(seconds("GO LEFT") * 16_000)
    assert (folder / "a-20080101-xyz/LICENSE").read_bytes() == b"GPL\n"
    assert not (folder / "left_out.jsonl").exists()
    assert not [path for path in folder.iterdir() if path.name[0] == "."]


def test_no_speaker_is_in_two_splits(archives: Path, tmp_path: Path) -> None:
    splits = rows_of(voxforge.prepare(tmp_path / "data", archives))
    speakers = {split: {speaker for _, speaker in rows} for split, rows in splits.items()}
    assert {split: len(names) for split, names in speakers.items()} == {"train": 8, "dev": 1, "test": 1}
    everyone = [speaker for names in speakers.values() for speaker in names]
    anonymous = ["anonymous-20090101-abc", "anonymous-20090101-abd"]
    assert sorted(everyone) == sorted(
        [*"abcdefgh", *anonymous]
    )  # each once; the three submissions of "a" are by one speaker


@pytest.mark.parametrize(
    ("shares", "numbers"),
    [
        ((0.5, 0.2, 0.3), {"train": 5, "dev": 2, "test": 3}),
        ((1, 0, 0), {"train": 10}),
        ((0, 0.5, 0.5), {"dev": 5, "test": 5}),
        ((0, 0, 1), {"test": 10}),
        ((0.98, 0.01, 0.01), {"train": 8, "dev": 1, "test": 1}),  # none is empty
        ((0.01, 0.01, 0.98), {"train": 1, "dev": 1, "test": 8}),
    ],
)
def test_shares(archives: Path, tmp_path: Path, shares: tuple[float, float, float], numbers: dict[str, int]) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives, shares)
    assert {split: len({speaker for _, speaker in rows}) for split, rows in rows_of(folder).items()} == numbers
    assert sum(len(rows) for rows in rows_of(folder).values()) == 24
    assert voxforge.prepare(tmp_path / "data", archives, shares) == folder


def test_seed_draws_and_a_new_speaker_moves_few(archives: Path, tmp_path: Path) -> None:
    shares = (0.5, 0.2, 0.3)
    first, again, other = (
        rows_of(voxforge.prepare(tmp_path / name, archives, shares, seed))
        for name, seed in (("x", 0), ("y", 0), ("z", 1))
    )
    assert first == again != other
    write_submission(archives, "i-20080101-xyz")
    more = rows_of(voxforge.prepare(tmp_path / "more", archives, shares))
    moved = {row for split in SPLITS for row in first[split] if row not in more[split]}
    assert len({speaker for _, speaker in moved}) <= 2


def test_second_run_does_nothing(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    before = tree(folder)
    capsys.readouterr()
    monkeypatch.setattr(voxforge, "extract", None)
    monkeypatch.setattr(voxforge, "download", None)
    assert voxforge.prepare(tmp_path / "data", archives) == folder
    archives.rename(tmp_path / "gone")
    assert voxforge.prepare(tmp_path / "data", archives) == folder
    assert voxforge.prepare(tmp_path / "data") == folder
    assert tree(folder) == before
    assert capsys.readouterr().err == ""


def test_other_settings_or_submissions_are_not_taken_for_these(archives: Path, tmp_path: Path) -> None:
    folder = voxforge.prepare(tmp_path / "data", archives)
    with pytest.raises(InputError, match=f"^{folder} must be made with seed 1, got 0. Delete the folder, or choose"):
        voxforge.prepare(tmp_path / "data", archives, seed=1)
    message = f"{folder} must be made with shares [0.9, 0.05, 0.05], got [0.8, 0.1, 0.1]. Delete"
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        voxforge.prepare(tmp_path / "data", archives, (0.9, 0.05, 0.05))
    write_submission(archives, "i-20080101-xyz")
    with pytest.raises(InputError, match=f"^{folder} must be made with submissions [0-9a-f]+, got [0-9a-f]+. Delete"):
        voxforge.prepare(tmp_path / "data", archives)


@pytest.mark.parametrize("stage", ["voxforge.extract", "build.audio_duration", "build.write_manifest"])
def test_a_stop_in_the_middle_is_not_believed(
    archives: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_after(*args: Any, **named: Any) -> None:
        done(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_after)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill: nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            voxforge.prepare(tmp_path / "data", archives)
    assert (tmp_path / "data/voxforge.partial").is_dir()
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert tree(folder) == tree(voxforge.prepare(tmp_path / "again", archives))
    assert not (tmp_path / "data/voxforge.partial").exists()


def test_what_cannot_be_used_is_named_and_counted(
    archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (f"a-20080{month}01-bad" for month in (2, 3, 4))
    text = f"{one}/mfc/b0000 \n\n{one}/mfc/b0002 GO\nb0001 A\nb0001 B\nb0003 caf\xe9\n".encode("latin-1")
    write_submission(archives, one, {"etc/PROMPTS": text, "wav/b0003.wav": recording("GO LEFT", "WAV")})
    cut = recording("GO LEFT", "WAV")[:-500]
    write_submission(
        archives, two, {"wav/b0000.wav": cut, "wav/b0009.wav": recording("GO LEFT", "WAV"), "wav/._b0000.wav": b"mac"}
    )
    write_archive(archives / f"{three}.tgz", {f"{three}/LICENSE": b"GPL"})
    whole = write_submission(archives, "a-20080501-cut")
    whole.write_bytes(whole.read_bytes()[:-200])
    write_archive(archives / "a-20080601-evil.tgz", {"../../stray": b"x"})
    folder = voxforge.prepare(tmp_path / "data", archives)
    assert left_out(folder) == {
        f"{one}/b0000.wav": "empty transcript",
        f"{one}/b0001": "unreadable transcript",
        f"{one}/b0002": "missing audio",
        f"{one}/b0003": "unreadable transcript",
        f"{two}/b0000.wav": "unreadable audio",
        f"{two}/b0009.wav": "missing transcript",
        three: "missing audio",
        "a-20080501-cut.tgz": "unreadable archive",
        "a-20080601-evil.tgz": "unreadable archive",
    }
    assert not list(tmp_path.rglob("stray"))
    assert whole.exists()  # the archive belongs to the user
    assert ".partial" not in (folder / "left_out.jsonl").read_text()
    error = capsys.readouterr().err
    assert "left out 7: 2 missing audio, 2 unreadable transcript, 1 " in error
    assert f"left out, in no split: 2: 2 unreadable archive; {folder}/left_out.jsonl names them\n" in error
    assert f"{two}/b0001.wav" in [name for rows in rows_of(folder).values() for name, _ in rows]


def test_prompts_and_speakers_as_they_come(tmp_path: Path) -> None:
    folder = tmp_path / "tgz"
    write_submission(folder, "x-20080101-a", {"etc/PROMPTS": None})
    write_submission(folder, "y-20080101-a", {"etc/PROMPTS": "\ufeffb0000\tÉté\r\nb0001 B\r\n".encode()})
    write_submission(folder, "Joe-Bloggs-20080101-a", {"etc/README": None})
    write_submission(folder, "odd", {"etc/README": b"User Name:\nGender: unknown\n"})
    flat = {name.removeprefix("z-20080101-a/"): data for name, data in submission("z-20080101-a", "Zoë").items()}
    write_archive(folder / "z-20080101-a.tgz", flat)  # without its own folder
    made = voxforge.prepare(tmp_path / "data", folder, (1, 0, 0))
    rows = {row.id: (row.speaker, row.transcript) for row in read_manifest(made / "train.jsonl")}
    assert {name: row for name, row in rows.items() if "b0000" in name} == {
        "x-20080101-a/b0000.wav": ("x", "Go left."),
        "y-20080101-a/b0000.wav": ("y", "Été"),
        "Joe-Bloggs-20080101-a/b0000.wav": ("joe-bloggs", "GO LEFT"),
        "odd/b0000.wav": ("odd", "GO LEFT"),
        "z-20080101-a/b0000.wav": ("zoë", "GO LEFT"),
    }


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (-0.1, 0.6, 0.5), (float("nan"), 0.5, 0.5)])
def test_wrong_shares(tmp_path: Path, shares: tuple[float, float, float]) -> None:
    message = f"--shares must be three shares of at least 0 that sum to 1, got {shares}. Try --shares 0.8 0.1 0.1."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        voxforge.prepare(tmp_path, tmp_path, shares)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^--archives must be a folder of submissions, got {tmp_path}/no\. Correct"):
        voxforge.prepare(tmp_path / "data", tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"^{tmp_path}/empty must hold submissions \(\.tgz\), got none\. Correct the"):
        voxforge.prepare(tmp_path / "data", tmp_path / "empty")
    write_submission(tmp_path / "two", "a-20080101-xyz")
    write_submission(tmp_path / "two", "b-20080101-xyz")
    message = r"two must hold readable submissions of 3 speakers, for train, dev, test, got 2\. Add submissions"
    with pytest.raises(InputError, match=message):
        voxforge.prepare(tmp_path / "data", tmp_path / "two")
    assert not (tmp_path / "data").exists()

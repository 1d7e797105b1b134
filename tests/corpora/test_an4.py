"""corpora/an4.py, on small archives of the published layout and on the real one."""

import functools
import importlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import audio_duration, read_audio
from ds2_jax.corpora import an4
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError

SPEAKERS = [f"s{i:02d}" for i in range(12)]
SPLITS = ("train", "dev", "test")
Files = dict[str, bytes]


@functools.cache
def recording(num_samples: int) -> bytes:
    noise = np.random.default_rng(0).integers(-999, 999, num_samples).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, noise, 16_000, format="NIST")
    return file.getvalue()


def corpus_files() -> Files:
    """Makes an archive's files: 2 utterances of each of 12 training speakers, 3 of each of 2 test speakers."""
    files: Files = {"an4/LICENSE": b"free\n"}
    for split, folder, speakers, count in (
        ("train", "an4_clstk", SPEAKERS, 2),
        ("test", "an4test_clstk", ["t1", "t2"], 3),
    ):
        ids, transcripts = [], []
        for i, name in enumerate(f"{speaker}/an{k}-{speaker}-b" for speaker in speakers for k in range(count)):
            ids.append(f"{folder}/{name}")
            text = f"GO TO {'FIVE' if i % 2 else 'OH'}"
            marked = f"<s> {text} </s>" if split == "train" else text
            transcripts.append(f"{marked} ({Path(name).name})")
            files[f"an4/wav/{folder}/{name}.sph"] = recording(1600 + 160 * i)
        files[f"an4/etc/an4_{split}.fileids"] = ("\n".join(ids) + "\n\n").encode()
        files[f"an4/etc/an4_{split}.transcription"] = ("\n".join(transcripts) + "\n\n").encode()
    return files


def write_archive(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "an4.tar.gz", corpus_files())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def speakers_of(folder: Path, split: str) -> set[str]:
    return {utterance.speaker for utterance in read_manifest(folder / f"{split}.jsonl")}


def test_utterances_are_those_of_the_archive(archive: Path, tmp_path: Path) -> None:
    folder = an4.prepare(tmp_path / "data", archive)
    assert folder == tmp_path / "data/an4"
    rows = {utterance.id: utterance for split in SPLITS for utterance in read_manifest(folder / f"{split}.jsonl")}
    assert len(rows) == 12 * 2 + 2 * 3
    row = rows["an1-s03-b"]
    assert row.transcript == "GO TO FIVE"
    assert row.speaker == "s03"
    assert row.audio == folder / "wav/an4_clstk/s03/an1-s03-b.sph"
    assert row.audio.read_bytes() == corpus_files()["an4/wav/an4_clstk/s03/an1-s03-b.sph"]
    assert row.duration == audio_duration(row.audio) == (1600 + 160 * 7) / 16_000
    assert not any(mark in row.transcript for row in rows.values() for mark in "<>()")


def test_manifests_can_be_moved(archive: Path, tmp_path: Path) -> None:
    an4.prepare(tmp_path / "data", archive)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    for split in SPLITS:
        assert all(row.audio.is_file() for row in read_manifest(tmp_path / f"elsewhere/an4/{split}.jsonl"))


def test_dev_is_eight_training_speakers_and_test_is_untouched(archive: Path, tmp_path: Path) -> None:
    folder = an4.prepare(tmp_path / "data", archive)
    train, dev = speakers_of(folder, "train"), speakers_of(folder, "dev")
    assert len(dev) == 8
    assert train | dev == set(SPEAKERS)
    assert not train & dev
    expected = corpus_files()["an4/etc/an4_test.fileids"].decode().split()
    test = read_manifest(folder / "test.jsonl")
    assert [row.audio.relative_to(folder / "wav").with_suffix("").as_posix() for row in test] == expected


def test_seed_draws_the_dev_speakers(archive: Path, tmp_path: Path) -> None:
    draws = [
        speakers_of(an4.prepare(tmp_path / name, archive, seed), "dev") for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert draws[0] == draws[1] != draws[2]


def test_summary(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    an4.prepare(tmp_path / "data", archive)
    output = capsys.readouterr()
    assert output.out == ""
    assert re.search(r"/data/an4: AN4 from .*/an4\.tar\.gz \(SHA-256 [0-9a-f]{64}\)\n", output.err)
    assert "  train  0.00 h  8 utterances  4 speakers  24 words\n" in output.err
    assert "  dev    0.00 h  16 utterances  8 speakers  48 words\n" in output.err
    assert "  test   0.00 h  6 utterances  2 speakers  18 words\n" in output.err


def test_complete_folder_is_left_alone(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = an4.prepare(tmp_path / "data", archive)
    (folder / "train.jsonl").write_text("mine\n")
    before = tree(tmp_path / "data")
    capsys.readouterr()
    assert an4.prepare(tmp_path / "data", archive) == folder
    archive.unlink()
    assert an4.prepare(tmp_path / "data", archive) == folder  # a run continues without the archive
    assert an4.prepare(tmp_path / "data") == folder
    assert tree(tmp_path / "data") == before
    assert capsys.readouterr().err == ""


def test_another_archive_or_seed_is_not_taken_for_this(archive: Path, tmp_path: Path) -> None:
    folder = an4.prepare(tmp_path / "data", archive)
    with pytest.raises(InputError, match=f"^{folder} must be made with seed 1, got 0. Delete the folder, or choose"):
        an4.prepare(tmp_path / "data", archive, seed=1)
    other = write_archive(tmp_path / "other.tar.gz", corpus_files() | {"an4/README": b"other"})
    with pytest.raises(InputError, match=f"^{folder} must be made with sha256 [0-9a-f]+, got [0-9a-f]+. Delete the"):
        an4.prepare(tmp_path / "data", other)
    (folder / "source.json").unlink()
    with pytest.raises(InputError, match=f"^{folder} must be made by preparing AN4, got no source.json in it."):
        an4.prepare(tmp_path / "data", archive)


def test_folder_that_was_changed_is_not_believed(archive: Path, tmp_path: Path) -> None:
    folder = an4.prepare(tmp_path / "data", archive)
    for content, finding in (
        ("", "source.json must be the file that preparing AN4 wrote, got other contents"),
        ("[]", "source.json must be the file that preparing AN4 wrote, got other contents"),
        ("{}", "must be made with seed 0, got None"),
    ):
        (folder / "source.json").write_text(content)
        with pytest.raises(InputError, match=f"^{folder}.?{finding}. Delete the folder, or choose another root.$"):
            an4.prepare(tmp_path / "data", archive)
    (folder / "dev.jsonl").unlink()
    with pytest.raises(InputError, match=f"^{folder} must be made by preparing AN4, got no dev.jsonl in it. Delete"):
        an4.prepare(tmp_path / "data", archive)


@pytest.mark.parametrize("stage", ["an4.extract", "an4.audio_duration", "an4.file_sha256", "build.write_manifest"])
def test_a_stop_in_the_middle_is_not_believed(
    archive: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_after(*args: object) -> None:
        done(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_after)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill: nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            an4.prepare(tmp_path / "data", archive)
    assert (tmp_path / "data/an4.partial").is_dir()
    assert not (tmp_path / "data/an4").exists()
    (tmp_path / "data/an4.partial/an4/wav/stray.sph").touch()
    folder = an4.prepare(tmp_path / "data", archive)
    assert tree(folder) == tree(an4.prepare(tmp_path / "again", archive))
    assert not (tmp_path / "data/an4.partial").exists()


def refused(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    """Checks that the archive with `changes` (None: left out) fails with "ARCHIVE MESSAGE..." and leaves nothing."""
    files = {name: content for name, content in (corpus_files() | changes).items() if content is not None}
    archive = write_archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(InputError, match=f"^{re.escape(str(archive))}{message}"):
        an4.prepare(tmp_path / "data", archive)
    assert not (tmp_path / "data").exists()


PUBLISHED = (
    r"\. Use the archive of Sphere files as published: http://www\.speech\.cs\.cmu\.edu/.*an4_sphere\.tar\.gz\.$"
)
FILEIDS, TRANSCRIPTS = "an4/etc/an4_test.fileids", "an4/etc/an4_test.transcription"


def test_archive_that_is_not_an4(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {"librispeech/README": b"x"})
    message = f"^{archive} must hold an4/etc/an4_train.transcription, got none{PUBLISHED}"
    with pytest.raises(InputError, match=message):
        an4.prepare(tmp_path / "data", archive)


@pytest.mark.parametrize("name", ["an4_train.fileids", "an4_train.transcription", "an4_test.fileids"])
def test_missing_list(tmp_path: Path, name: str) -> None:
    refused(tmp_path, {f"an4/etc/{name}": None}, f" must hold an4/etc/{name}, got none{PUBLISHED}")


def test_missing_recording(tmp_path: Path) -> None:
    name = "an4/wav/an4_clstk/s03/an1-s03-b.sph"
    refused(tmp_path, {name: None}, f" must hold the recording {name}, got none{PUBLISHED}")


def test_recording_cut_short(tmp_path: Path) -> None:
    name = "an4/wav/an4_clstk/s03/an1-s03-b.sph"
    message = f": .*{name} must hold the 2720 samples that its header states, got 2688. Replace the recording"
    refused(tmp_path, {name: recording(2720)[:-64]}, message)


def test_lists_that_are_not_utf8(tmp_path: Path) -> None:
    message = f" must hold {TRANSCRIPTS} in UTF-8, got invalid continuation byte at byte 0"
    refused(tmp_path, {TRANSCRIPTS: b"\xc9T (an0-t1-b)\n"}, message + PUBLISHED)


def test_empty_test_set(tmp_path: Path) -> None:
    refused(
        tmp_path, {FILEIDS: b"", TRANSCRIPTS: b""}, f" must list utterances in an4_test.fileids, got none{PUBLISHED}"
    )


def test_utterance_without_transcript(tmp_path: Path) -> None:
    ids = corpus_files()[FILEIDS] + b"an4test_clstk/t1/an9-t1-b\n"
    message = " must give one transcript for each line of an4_test.fileids, got none for an4test_clstk/t1/an9-t1-b"
    refused(tmp_path, {FILEIDS: ids}, message + PUBLISHED)


def test_utterance_listed_twice(tmp_path: Path) -> None:
    ids = corpus_files()[FILEIDS]
    message = " must give one transcript for each line of an4_test.fileids, got none for an4test_clstk/t1/an0-t1-b"
    refused(tmp_path, {FILEIDS: ids + ids}, message + PUBLISHED)


def test_transcript_without_utterance(tmp_path: Path) -> None:
    transcripts = corpus_files()[TRANSCRIPTS] + b"YES (an9-t1-b)\n"
    message = " must list each transcript in an4_test.fileids, got an9-t1-b without a line"
    refused(tmp_path, {TRANSCRIPTS: transcripts}, message + PUBLISHED)


@pytest.mark.parametrize("line", ["YES", "YES an0-t1-b", "YES (an0-t1-b", "YES (an0-t1-b)"])
def test_transcript_not_marked_or_twice(tmp_path: Path, line: str) -> None:
    transcripts = corpus_files()[TRANSCRIPTS] + line.encode()
    message = (
        f" must end each transcript with its utterance's name in parentheses, each name once, got '{re.escape(line)}'"
    )
    refused(tmp_path, {TRANSCRIPTS: transcripts}, message + PUBLISHED)


@pytest.mark.parametrize("line", ["an0-t1-b", "t1/an0-t1-b", "/t1/an0-t1-b", "../t1/an0-t1-b"])
def test_odd_file_id(tmp_path: Path, line: str) -> None:
    refused(
        tmp_path,
        {FILEIDS: line.encode()},
        f" must name utterances as FOLDER/SPEAKER/UTTERANCE, got '{line}'{PUBLISHED}",
    )


def test_too_few_speakers(tmp_path: Path) -> None:
    files = corpus_files()
    kept: dict[str, bytes | None] = {
        f"an4/etc/an4_train.{kind}": b"\n".join(files[f"an4/etc/an4_train.{kind}"].split(b"\n")[:16])
        for kind in ("fileids", "transcription")
    }
    refused(tmp_path, kept, f" must hold more than 8 training speakers, got 8{PUBLISHED}")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"/no\.tar\.gz must be a file, got a folder or nothing at this path\. Correct the path\.$"
    ):
        an4.prepare(tmp_path / "data", tmp_path / "no.tar.gz")


def test_broken_archive(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"an4\.tar\.gz must be an undamaged \.tar\.gz archive, got: .*end-of-stream.*\. Delete"
    ):
        an4.prepare(tmp_path / "data", archive)
    assert not (tmp_path / "data").exists()


def test_offline_names_the_archive_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(an4, "URL", "http://127.0.0.1:9/an4_sphere.tar.gz")  # discard: nothing listens
    message = (
        r"^http://.*/an4_sphere\.tar\.gz must be downloadable to .*, got .*refused.* give a copy of the archive: "
        r"prepare an4 --archive PATH, train --data\.archive PATH\.$"
    )
    with pytest.raises(InputError, match=message):
        an4.prepare(tmp_path / "data")


def test_download_must_hold_the_published_numbers(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    downloaded = archive.rename(tmp_path / "data/an4_sphere.tar.gz")  # as left by an earlier download
    message = (
        f"^{downloaded} must hold {{'train': 948, 'test': 130}} utterances, got {{'train': 24, 'test': 6}}. Delete"
    )
    with pytest.raises(InputError, match=message):
        an4.prepare(tmp_path / "data")
    monkeypatch.setattr(an4, "NUM_PUBLISHED", {"train": 24, "test": 6})
    assert an4.prepare(tmp_path / "data") == tmp_path / "data/an4"


def test_real_archive(an4_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gives the copy of the published archive, whose test set has nine training speakers."""
    folder = an4.prepare(tmp_path, an4_archive)
    splits = {split: read_manifest(folder / f"{split}.jsonl") for split in SPLITS}
    assert len(splits["train"]) + len(splits["dev"]) == 831
    assert len(splits["test"]) == 117
    assert sum(len(row.transcript.split()) for row in splits["test"]) == 728
    words = sum(len(row.transcript.split()) for split in ("train", "dev") for row in splits[split])
    assert words == 4714
    assert speakers_of(folder, "test") == {"fclc", "fkai", "fsaf2", "mbmg", "mdmc", "mfaa", "mmap", "msjm", "mtcv"}
    # The draw must never change, or results on dev cannot be compared.
    assert speakers_of(folder, "dev") == {"fsrb", "fwxs", "mcen", "mgah", "mmal", "mrcb", "mrjc2", "mtos"}
    characters = set("".join(row.transcript for rows in splits.values() for row in rows))
    assert characters <= set("'ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    for row in splits["dev"][::20]:
        assert len(read_audio(row.audio, 16_000)) == round(row.duration * 16_000)
    assert json.loads((folder / "source.json").read_text())["seed"] == 0
    assert "test" in capsys.readouterr().err

"""corpora/librispeech.py, on small archives of the published layout."""

import importlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.corpora import librispeech
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.download import file_md5
from ds2_jax.system.errors import InputError
from tests.speech import SENTENCES, recording, seconds, tree, write_archive

SPEAKERS = {
    "train-clean-100": ("19", "26"),
    "train-clean-360": ("14",),
    "dev-clean": ("84",),
    "dev-other": ("116",),
    "test-clean": ("61",),
    "test-other": ("367",),
}


def part_files(part: str) -> dict[str, bytes]:
    """Makes two chapters of two utterances for each speaker."""
    files = {"LibriSpeech/LICENSE.TXT": b"CC BY 4.0\n", "LibriSpeech/SPEAKERS.TXT": b"; ID | SEX\n"}
    for speaker in SPEAKERS[part]:
        for chapter in ("198", "1420"):
            lines = []
            for index, sentence in enumerate(SENTENCES[:2]):
                name = f"{speaker}-{chapter}-{index:04d}"
                files[f"LibriSpeech/{part}/{speaker}/{chapter}/{name}.flac"] = recording(sentence)
                lines.append(f"{name} {sentence}\n")
            text = "".join(lines).encode()
            files[f"LibriSpeech/{part}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt"] = text
    return files


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    for part in SPEAKERS:
        write_archive(tmp_path / f"tars/{part}.tar.gz", part_files(part))
    return tmp_path / "tars"


def names(manifest: Path) -> list[str]:
    return [row.id for row in read_manifest(manifest)]


def test_utterances_are_those_of_the_archive(archives: Path, tmp_path: Path) -> None:
    folder = librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    assert folder == tmp_path / "data/librispeech"
    rows = read_manifest(folder / "dev.jsonl")
    assert [row.id for row in rows] == ["84-1420-0000", "84-1420-0001", "84-198-0000", "84-198-0001"]
    row = rows[1]
    assert (row.transcript, row.speaker, row.duration) == ("OPEN THE DOOR", "84", seconds("OPEN THE DOOR"))
    assert row.audio == folder / "dev-clean/84/1420/84-1420-0001.flac"
    assert row.audio.read_bytes() == recording("OPEN THE DOOR")
    assert (folder / "dev-clean/LICENSE.TXT").read_bytes() == b"CC BY 4.0\n"
    assert not (folder / "dev-clean.partial").exists()


def test_splits_hold_the_parts_that_are_there(archives: Path, tmp_path: Path) -> None:
    parts: list[librispeech.Part] = ["test-other", "train-clean-100"]
    folder = librispeech.prepare(tmp_path / "data", tuple(parts), archives)
    assert {path.name for path in folder.glob("*.jsonl")} == {"train.jsonl", "test-other.jsonl"}
    assert {row.speaker for row in read_manifest(folder / "train.jsonl")} == {"19", "26"}
    before = (folder / "test-other.jsonl").stat().st_ino
    librispeech.prepare(tmp_path / "data", ("train-clean-360", "dev-other", "dev-clean", "test-clean"), archives)
    assert {row.speaker for row in read_manifest(folder / "train.jsonl")} == {"14", "19", "26"}
    assert len(names(folder / "dev.jsonl")) == 8
    assert {name.split("-")[0] for name in names(folder / "test-clean.jsonl")} == {"61"}
    assert (folder / "test-other.jsonl").stat().st_ino == before  # unchanged files are not written again


def test_part_that_was_deleted_leaves_the_splits(archives: Path, tmp_path: Path) -> None:
    folder = librispeech.prepare(tmp_path / "data", ("dev-clean", "dev-other", "test-clean"), archives)
    for part in ("dev-other", "test-clean"):
        (folder / part).rename(tmp_path / part)
    librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    assert {name.split("-")[0] for name in names(folder / "dev.jsonl")} == {"84"}
    assert not (folder / "test-clean.jsonl").exists()


def test_manifests_can_be_moved(archives: Path, tmp_path: Path) -> None:
    librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert all(row.audio.is_file() for row in read_manifest(tmp_path / "elsewhere/librispeech/dev.jsonl"))


def test_second_run_does_nothing(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts: tuple[librispeech.Part, ...] = ("dev-clean", "test-clean")
    folder = librispeech.prepare(tmp_path / "data", parts, archives)
    before = tree(tmp_path / "data")
    capsys.readouterr()
    for name in ("extract", "file_md5", "read_manifest", "write_text"):  # the MD5 of 30 GB takes time
        monkeypatch.setattr(librispeech, name, None)
    assert librispeech.prepare(tmp_path / "data", parts, archives) == folder
    for archive in archives.iterdir():
        archive.unlink()
    assert librispeech.prepare(tmp_path / "data", parts, archives) == folder
    assert librispeech.prepare(tmp_path / "data", parts) == folder
    assert tree(tmp_path / "data") == before
    assert capsys.readouterr().err == ""


def test_what_is_printed(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, tars = str(tmp_path / "data"), str(archives)
    words = ["prepare", "librispeech", "--root", root, "--archives", tars, "--parts", "train-clean-360", "dev-clean"]
    assert cli.main(words) == 0
    output = capsys.readouterr()
    folder = f"{root}/librispeech"
    assert output.out == f"{folder}\n"
    md5 = file_md5(archives / "dev-clean.tar.gz")
    assert output.err == "".join(
        f"{folder}/{part}: LibriSpeech from {tars}/{part}.tar.gz (MD5 {file_md5(archives / f'{part}.tar.gz')}, "
        f"not the published {librispeech.MD5[part]})\n"
        f"  {part}  0.00 h  4 utterances  1 speakers  10 words\n"
        f"{folder}/{split}.jsonl: 0.00 h  4 utterances, from {part}\n"
        for part, split in (("train-clean-360", "train"), ("dev-clean", "dev"))
    )
    assert json.loads((tmp_path / "data/librispeech/dev-clean/source.json").read_text())["md5"] == md5


def test_published_archive_is_told(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    md5 = file_md5(archives / "dev-clean.tar.gz")
    monkeypatch.setitem(librispeech.MD5, "dev-clean", md5)
    librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    assert f"/dev-clean.tar.gz (MD5 {md5}, as published)\n" in capsys.readouterr().err


def test_another_archive_is_not_taken_for_this(archives: Path, tmp_path: Path) -> None:
    folder = librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    archive = archives / "dev-clean.tar.gz"
    old = file_md5(archive)
    archive.touch()  # another date does not make another archive
    librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    write_archive(archive, part_files("dev-clean") | {"LibriSpeech/README.TXT": b"new"})
    message = (
        f"{folder}/dev-clean must be made from {archive} (MD5 {file_md5(archive)}), got an archive of MD5 {old}. Delete"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    (folder / "dev-clean/source.json").unlink()
    with pytest.raises(InputError, match="dev-clean must be made by preparing LibriSpeech dev-clean, got no source"):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)


@pytest.mark.parametrize(
    "stage", ["librispeech.extract", "build.audio_duration", "build.write_manifest", "librispeech.write_manifest"]
)
def test_a_stop_costs_one_part(archives: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: tuple[librispeech.Part, ...] = ("dev-clean", "dev-other", "test-clean")
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_in_the_second(*args: object) -> object:
        if any("dev-other" in str(each) for each in args) or (folder / "dev-other").exists():
            raise KeyboardInterrupt
        return done(*args)

    folder = tmp_path / "data/librispeech"
    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_in_the_second)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as after a kill: nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            librispeech.prepare(tmp_path / "data", parts, archives)
    assert len(names(folder / "dev.jsonl")) == 4  # the finished part can be used
    first = (folder / "dev-clean/utterances.jsonl").stat().st_ino
    librispeech.prepare(tmp_path / "data", parts, archives)
    assert (folder / "dev-clean/utterances.jsonl").stat().st_ino == first
    again = librispeech.prepare(tmp_path / "again", parts, archives)
    assert tree(folder) == tree(again)


def change(tmp_path: Path, changes: dict[str, bytes | None]) -> Path:
    """Makes a folder with the archive of dev-clean with `changes` (None removes a file)."""
    files = {name: content for name, content in (part_files("dev-clean") | changes).items() if content is not None}
    return write_archive(tmp_path / "changed/dev-clean.tar.gz", files).parent


def test_what_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapter = "LibriSpeech/dev-clean/84/198/84-198"
    text = b"84-198-0000 YES\n84-198-0001 \n84-198-0002 GO\n"
    changes = {
        f"{chapter}.trans.txt": text,
        f"{chapter}-0003.flac": recording("GO LEFT"),
        "LibriSpeech/dev-clean/84/1420/84-1420-0000.flac": recording("GO LEFT")[:20],
    }
    folder = librispeech.prepare(tmp_path / "data", ("dev-clean",), change(tmp_path, dict(changes)))
    assert names(folder / "dev.jsonl") == ["84-1420-0001", "84-198-0000"]
    path = folder / "dev-clean/left_out.jsonl"
    rows = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "84-1420-0000": "unreadable audio",
        "84-198-0001": "empty transcript",
        "84-198-0002": "missing audio",
        "84-198-0003": "missing transcript",
    }
    assert rows["84-198-0003"]["audio"] == str(folder / "dev-clean/84/198/84-198-0003.flac")
    assert (
        f"left out 4: 1 unreadable audio, 1 empty transcript, 1 missing transcript, 1 missing audio; {path} names"
        in (capsys.readouterr().err)
    )


PUBLISHED = r"\. Use the archive as published: https://www\.openslr\.org/resources/12/dev-clean\.tar\.gz\.$"
CHAPTER = "LibriSpeech/dev-clean/84/198"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"LibriSpeech/dev-other/1/2/1-2.trans.txt": b""},
            "must hold LibriSpeech/dev-clean and no other folder, got dev-other",
        ),
        (
            {f"{CHAPTER}/84-198.trans.txt": b"84-198-0000 A\n84-198-0000 B\n"},
            "must hold one transcript for each utterance, got two of 84-198-0000",
        ),
        (
            {"LibriSpeech/dev-clean/84/7/84-198-0000.flac": b"x"},
            "must hold one recording of each utterance, got two of 84-198-0000",
        ),
    ],
)
def test_archive_that_is_not_that_part(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    archives = change(tmp_path, changes)
    with pytest.raises(InputError, match=f"^{archives}/dev-clean.tar.gz {message}{PUBLISHED}"):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    assert not (tmp_path / "data/librispeech").exists()


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("flac", "must hold at least one usable recording, got none in dev-clean"),
        ("", "must hold LibriSpeech/dev-clean and no other folder, got none"),
    ],
)
def test_archive_without_it(tmp_path: Path, lacking: str, message: str) -> None:
    gone = {name: None for name in part_files("dev-clean") if name.endswith(lacking)}
    archives = change(tmp_path, {**gone, "README": b"x"})
    with pytest.raises(InputError, match=f"^{archives}/dev-clean.tar.gz {message}{PUBLISHED}"):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)


def test_transcripts_that_are_not_utf8(tmp_path: Path) -> None:
    archives = change(tmp_path, {f"{CHAPTER}/84-198.trans.txt": b"84-198-0000 \xc9T\n"})
    with pytest.raises(
        InputError, match=r"^.*/dev-clean\.tar\.gz: .*84-198\.trans\.txt must be UTF-8 text, got invalid"
    ):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)


def test_broken_and_hostile_archives(archives: Path, tmp_path: Path) -> None:
    archive = archives / "dev-clean.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(
        InputError, match=r"dev-clean\.tar\.gz must be an undamaged \.tar\.gz archive, got: .*end-of-stream"
    ):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    write_archive(archive, part_files("dev-clean") | {"LibriSpeech/../../../stray": b"x"})
    with pytest.raises(InputError, match=r"hold only files and folders with relative paths without \.\., got the file"):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    assert list(tmp_path.rglob("*stray*")) == []
    assert not (tmp_path / "data/librispeech").exists()


def test_missing_archives_are_named_before_the_work(archives: Path, tmp_path: Path) -> None:
    message = (
        f"{archives} must hold train-other-500.tar.gz, got no such file. Copy the missing files there, or prepare "
        f"only the existing ones: --parts {' '.join(SPEAKERS)}."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        librispeech.prepare(tmp_path / "data", archives=archives)
    assert not (tmp_path / "data").exists()
    message = "dev-clean.tar.gz, got no such file. Copy the missing files there, or correct --archives.$"
    with pytest.raises(InputError, match=message):
        librispeech.prepare(tmp_path / "data", ("dev-clean",), tmp_path / "nowhere")


def test_parts_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        InputError, match=r"^--parts must name at least one of train-clean-100, .*, got none\. Name one"
    ):
        librispeech.prepare(tmp_path, ())
    assert cli.main(["prepare", "librispeech", "--parts", "dev-dirty"]) == 1
    assert "dev-dirty" in capsys.readouterr().err


def test_download_must_be_the_published_archive(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(librispeech, "URL", "http://127.0.0.1:9")  # discard: nothing listens
    message = r"^http://127.0.0.1:9/dev-clean\.tar\.gz must be downloadable to .*, got .*refused.* --archives FOLDER\.$"
    with pytest.raises(InputError, match=message):
        librispeech.prepare(tmp_path / "data", ("dev-clean",))
    assert not (tmp_path / "data").exists()
    (tmp_path / "data/librispeech").mkdir(parents=True)
    there = (archives / "dev-clean.tar.gz").rename(tmp_path / "data/librispeech/dev-clean.tar.gz")
    message = f"^{there} must have the MD5 {librispeech.MD5['dev-clean']}, got {file_md5(there)}. Delete it and fetch"
    with pytest.raises(InputError, match=message):
        librispeech.prepare(tmp_path / "data", ("dev-clean",))
    monkeypatch.setitem(librispeech.MD5, "dev-clean", file_md5(there))
    assert len(names(librispeech.prepare(tmp_path / "data", ("dev-clean",)) / "dev.jsonl")) == 4


def test_what_is_downloaded(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def download(url: str, path: Path, checksum: str, advice: str) -> None:
        asked.extend((url, checksum))
        (archives / path.name).rename(path)

    monkeypatch.setattr(librispeech, "download", download)
    monkeypatch.setitem(librispeech.MD5, "dev-other", md5 := file_md5(archives / "dev-other.tar.gz"))
    folder = librispeech.prepare(tmp_path / "data", ("dev-other",))
    assert asked == ["https://www.openslr.org/resources/12/dev-other.tar.gz", md5]
    assert (folder / "dev-other.tar.gz").is_file()  # kept, for the user to delete


def test_manifest_that_was_deleted_is_written_again(archives: Path, tmp_path: Path) -> None:
    folder = librispeech.prepare(tmp_path / "data", ("dev-clean",), archives)
    (folder / "dev.jsonl").unlink()
    librispeech.prepare(tmp_path / "data", ("dev-clean",))
    assert len(names(folder / "dev.jsonl")) == 4


def test_real_speech(an4_archive: Path, tmp_path: Path) -> None:
    """AN4's recordings in LibriSpeech's layout and format are read to the sample."""
    files: dict[str, bytes] = {}
    lengths = {}
    with tarfile.open(an4_archive) as tar:
        recordings = (member for member in tar if member.name.endswith(".sph"))
        for index, (member, _) in enumerate(zip(recordings, range(8), strict=False)):
            stream = tar.extractfile(member)
            assert stream is not None
            samples, rate = soundfile.read(io.BytesIO(stream.read()), dtype="int16")
            flac = io.BytesIO()
            soundfile.write(flac, samples, rate, format="FLAC")
            name = f"1-2-{index:04d}"
            files[f"LibriSpeech/test-other/1/2/{name}.flac"] = flac.getvalue()
            lengths[name] = len(samples)
    files["LibriSpeech/test-other/1/2/1-2.trans.txt"] = "".join(f"{name} YES\n" for name in lengths).encode()
    write_archive(tmp_path / "test-other.tar.gz", files)
    folder = librispeech.prepare(tmp_path / "data", ("test-other",), tmp_path)
    rows = read_manifest(folder / "test-other.jsonl")
    assert {row.id: row.num_samples(16_000) for row in rows} == lengths
    assert {row.id: len(read_audio(row.audio, 16_000)) for row in rows} == lengths

"""Common Voice: preparing that is stopped and continued, and archives that are refused."""

import importlib
import json
from pathlib import Path

import pytest

from ds2_jax.audio.reading import decoded_duration
from ds2_jax.corpora import common_voice
from ds2_jax.corpora.archive import extract
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.corpora.common_voice_archives import FR, HEADER, SPLITS, changed, left_out, mp3, release, write_archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "fr.tar.gz", release())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


STAGES = ["common_voice._unpack_lists", "common_voice.extract", "common_voice.in_parallel", "common_voice.finish"]


@pytest.mark.parametrize("stage", STAGES)
def test_stop_and_go_on(archive: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tree(common_voice.prepare(tmp_path / "whole", archive))
    module, _, name = stage.partition(".")
    done = getattr(importlib.import_module(f"ds2_jax.corpora.{module}"), name)

    def stop_after(*args: object, **options: object) -> None:
        if stage != "common_voice.finish":
            done(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ds2_jax.corpora.{stage}", stop_after)
        patch.setattr("ds2_jax.corpora.build._tidy", lambda *_: None)  # as after a kill
        with pytest.raises(KeyboardInterrupt):
            common_voice.prepare(tmp_path / "data", archive)
    assert not (tmp_path / "data/common-voice").exists()
    assert tree(common_voice.prepare(tmp_path / "data", archive)) == expected
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["common-voice"]


def test_nothing_is_done_twice(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop at three clips, they are not decoded again, and the archive is not read again."""
    decoded: list[str] = []

    def decode_three(path: Path) -> float:
        if len(decoded) == 3:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return decoded_duration(path)

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(common_voice, "decoded_duration", decode_three)
        with pytest.raises(KeyboardInterrupt):
            common_voice.prepare(tmp_path / "data", archive)
    partial = tmp_path / "data/common-voice.partial"
    with (partial / "durations.jsonl").open("a") as file:
        file.write('{"common_voice_fr_7.mp3": 12')  # killed in the middle of a line

    def decode_others(path: Path) -> float:
        assert path.name not in decoded
        return decoded_duration(path)

    monkeypatch.setattr(common_voice, "decoded_duration", decode_others)
    monkeypatch.setattr(common_voice, "extract", lambda *_: pytest.fail("the archive was unpacked again"))
    folder = common_voice.prepare(tmp_path / "data", archive)
    assert [len(read_manifest(folder / f"{split}.jsonl")) for split in SPLITS] == [5, 1, 2]
    assert read_manifest(folder / "test.jsonl")[1].duration < 12


def test_half_a_clip_is_unpacked_again(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def stop_in_the_middle(*args: object) -> None:
        extract(*args)  # type: ignore[arg-type]
        calls.append(None)
        if len(calls) == 2:  # the first unpacks the lists
            clip = tmp_path / "data/common-voice.partial/clips/common_voice_fr_0.mp3"
            clip.write_bytes(clip.read_bytes()[:500])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(common_voice, "extract", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            common_voice.prepare(tmp_path / "data", archive)
    folder = common_voice.prepare(tmp_path / "data", archive)
    assert (folder / "clips/common_voice_fr_0.mp3").read_bytes() == mp3(0)


def test_another_archive_does_not_go_on_with_it(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(common_voice, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            common_voice.prepare(tmp_path / "data", archive)
    other = changed(tmp_path, {f"{FR}/clips/common_voice_fr_0.mp3": mp3(5)})
    folder = common_voice.prepare(tmp_path / "data", other)
    assert (folder / "clips/common_voice_fr_0.mp3").read_bytes() == mp3(5)
    message = r"common-voice must be made with archive_(bytes|crc32) \w+, got \w+\. Delete the folder"
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "data", archive)
    with pytest.raises(InputError, match=r"must be made with language de, got fr\. Delete the folder"):
        common_voice.prepare(tmp_path / "data", language="de")


def refused(tmp_path: Path, archive: Path, message: str, language: str | None = None) -> None:
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "data", archive, language)
    assert not (tmp_path / "data").exists()


def test_no_archive(tmp_path: Path) -> None:
    message = r"^--archive must name a release of Common Voice, got none\. Log in at https://.* --archive FILE\.$"
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path)
    with pytest.raises(
        InputError, match=r"/no\.tar\.gz must be a file, got a folder or nothing at this path\. Correct the path\.$"
    ):
        common_voice.prepare(tmp_path, tmp_path / "no.tar.gz")


def test_several_languages(tmp_path: Path) -> None:
    both = write_archive(tmp_path / "both.tar.gz", release() | release("cv-corpus-22.0-2025-06-20/zh-CN"))
    refused(tmp_path, both, r"^--language must name one of fr, zh-CN, which .*both\.tar\.gz holds, got none\. Add")
    refused(tmp_path, both, r"^--language must be one that .* holds \(fr, zh-CN\), got de\. Correct it\.$", "de")
    folder = common_voice.prepare(tmp_path / "data", both, "zh-CN")
    assert json.loads((folder / "source.json").read_text())["language"] == "zh-CN"
    assert len(list((folder / "clips").iterdir())) == 8


def test_first_release(tmp_path: Path) -> None:
    files = {"cv_corpus_v1/cv-valid-train.csv": b"filename,text\n", "cv_corpus_v1/cv-valid-train/sample-0.mp3": b""}
    message = r"a\.tar\.gz must be a release with lists in \.tsv, got cv_corpus_v1, of 2017\. Log in .* later one\.$"
    refused(tmp_path, write_archive(tmp_path / "a.tar.gz", files), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict.fromkeys(f"{FR}/{split}.tsv" for split in SPLITS), r"hold train\.tsv, .*, got invalidated\.tsv, other"),
        (
            {f"{FR}/dev.tsv": None},
            f"hold {FR}/dev.tsv, got none. Use a whole release of one language \\(not a delta\\)",
        ),
    ],
)
def test_no_release_with_splits(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    refused(tmp_path, changed(tmp_path, changes), rf"changed\.tar\.gz must {message}")


def test_no_release_at_all(tmp_path: Path) -> None:
    refused(tmp_path, write_archive(tmp_path / "a.tar.gz", {"an4/x": b""}), r"hold train\.tsv, .*, got no lists\. Use")


def test_damaged_archive(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-5000])
    refused(tmp_path, archive, r"fr\.tar\.gz must be an undamaged \.tar\.gz archive, got: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"filename\ttext\n", r"train\.tsv must have the columns client_id, path, sentence, got filename, text\. Use"),
        (
            b"client_id\tpath\tsentence\n\xe9\n",
            r"train\.tsv must be UTF-8, got .* at byte 24\. Download the archive again\.$",
        ),
    ],
)
def test_unusable_list(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "data", changed(tmp_path, {f"{FR}/train.tsv": content}))
    assert not (tmp_path / "data/common-voice").exists()


def test_hostile_archive_writes_nothing_outside(tmp_path: Path) -> None:
    """Links are not unpacked, even if a list names them; a name that leads outside is an error."""
    links = [(f"{FR}/clips", "/tmp"), (f"{FR}/clips/common_voice_fr_0.mp3", "/etc/passwd"), ("clips", "..")]
    files = release()
    del files[f"{FR}/clips/common_voice_fr_0.mp3"]
    folder = common_voice.prepare(tmp_path / "data", write_archive(tmp_path / "a.tar.gz", files, links))
    assert left_out(folder)["common_voice_fr_0"][0] == "missing audio"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    outside = {f"../{split}.tsv": f"{HEADER}\n".encode() for split in SPLITS}
    message = (
        r"must hold only files and folders with relative paths without \.\., "
        r"got the file '\.\./train\.tsv'\. Do not use"
    )
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "other", write_archive(tmp_path / "b.tar.gz", outside))
    assert not (tmp_path / "other").exists()

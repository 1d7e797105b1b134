"""TED-LIUM: preparing that is stopped and continued, and archives that are refused."""

import importlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from ds2_jax.corpora import tedlium
from ds2_jax.corpora.archive import extract
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.corpora.tedlium_archives import SPLITS, left_out, release2, write_archive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "TEDLIUM_release2.tar.gz", release2())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", ["_unpack_lists", "extract", "in_parallel", "finish"])
def test_stop_and_go_on(archive: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tree(tedlium.prepare(tmp_path / "whole", archive))
    done = getattr(importlib.import_module("ds2_jax.corpora.tedlium"), stage)

    def stop_after(*args: object, **options: object) -> None:
        if stage != "finish":
            done(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tedlium, stage, stop_after)
        patch.setattr("ds2_jax.corpora.build._tidy", lambda *_: None)  # as after a kill
        with pytest.raises(KeyboardInterrupt):
            tedlium.prepare(tmp_path / "data", archive)
    assert not (tmp_path / "data/tedlium").exists()
    assert tree(tedlium.prepare(tmp_path / "data", archive)) == expected
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tedlium"]


def test_talks_are_cut_once_and_then_deleted(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop in the third talk, the first two are neither unpacked nor cut again."""
    cut: list[Path] = []
    read_audio = importlib.import_module("ds2_jax.audio.reading").read_audio

    def read_two(path: Path, rate: int) -> np.ndarray:
        if len(cut) == 2:
            raise KeyboardInterrupt
        cut.append(path)
        return read_audio(path, rate)

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(tedlium, "read_audio", read_two)
        with pytest.raises(KeyboardInterrupt):
            tedlium.prepare(tmp_path / "data", archive)
    partial = tmp_path / "data/tedlium.partial"
    assert [path.name for path in sorted(partial.rglob("*.sph"))] == ["CatDoe_2010.sph", "DanPoe_2011.sph"]
    written = {path: path.stat().st_mtime_ns for path in partial.rglob("*.flac")}
    assert len(written) == 4

    def read_others(path: Path, rate: int) -> np.ndarray:
        assert path not in cut
        return read_audio(path, rate)

    monkeypatch.setattr(tedlium, "read_audio", read_others)
    monkeypatch.setattr(tedlium, "extract", lambda *_: pytest.fail("the archive was unpacked again"))
    folder = tedlium.prepare(tmp_path / "data", archive)
    for path, time in written.items():
        assert (folder / path.relative_to(partial)).stat().st_mtime_ns == time
    assert [len(read_manifest(folder / f"{split}.jsonl")) for split in SPLITS] == [4, 2, 2]


def test_talk_that_is_gone_but_not_cut(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the machine crashes before the journal is on disk, the talk must not be left out for good."""
    with monkeypatch.context() as patch:
        patch.setattr(tedlium, "finish", lambda *_: pytest.fail("stop"))
        with pytest.raises(pytest.fail.Exception):
            tedlium.prepare(tmp_path / "data", archive)
    partial = tmp_path / "data/tedlium.partial"
    (partial / "talks.jsonl").write_text("")
    message = rf"talks/train/AnnLee_2009P\.sph must exist to be cut, got none\. Delete {partial} and run again\.$"
    with pytest.raises(InputError, match=message):
        tedlium.prepare(tmp_path / "data", archive)


def test_half_a_talk_is_unpacked_again(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def stop_in_the_middle(*args: object) -> None:
        extract(*args)  # type: ignore[arg-type]
        calls.append(None)
        if len(calls) == 2:  # the first unpacks the lists
            recording = tmp_path / "data/tedlium.partial/talks/train/AnnLee_2009P.sph"
            recording.write_bytes(recording.read_bytes()[:5000])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tedlium, "extract", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            tedlium.prepare(tmp_path / "data", archive)
    folder = tedlium.prepare(tmp_path / "data", archive)
    assert "AnnLee_2009P" not in left_out(folder)


def refused(tmp_path: Path, archive: Path, message: str, release: int | None = None) -> None:
    with pytest.raises(InputError, match=message):
        tedlium.prepare(tmp_path / "data", archive, release)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_wrong_archives(archive: Path, tmp_path: Path) -> None:
    refused(tmp_path, archive, r"release2\.tar\.gz must be release 3, got release 2\. Correct --release or", 3)
    other = write_archive(tmp_path / "a.tgz", {"an4/wav/x.sph": b""})
    refused(
        tmp_path, other, r"a\.tgz must hold TEDLIUM_release2 or TEDLIUM_release-3 with .*, got neither\. Use .*tgz\.$"
    )
    files = {name: content for name, content in release2().items() if "/test/" not in name}
    part = write_archive(tmp_path / "b.tgz", files)
    refused(tmp_path, part, r"b\.tgz must hold talks for test, got none\. Use the archive as published\.$")
    archive.write_bytes(archive.read_bytes()[:-5000])
    refused(tmp_path, archive, r"release2\.tar\.gz must be an undamaged \.tar\.gz archive, got: ")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"/no\.tgz must be a file, got a folder or nothing at this path\. Correct the path\.$"
    ):
        tedlium.prepare(tmp_path / "data", tmp_path / "no.tgz")


@pytest.mark.parametrize("release", [None, 2])
def test_offline_names_the_archive_option(
    tmp_path: Path, release: Literal[2] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # Port 9 is discard: nothing listens.
    urls = {2: "http://127.0.0.1:9/TEDLIUM_release2.tar.gz", 3: "http://127.0.0.1:9/TEDLIUM_release-3.tgz"}
    monkeypatch.setattr(tedlium, "URLS", urls)
    name = Path(urls[release or 3]).name
    message = rf"/{name} must be downloadable to .*, got .*refused.* prepare tedlium --archive FILE\.$"
    with pytest.raises(InputError, match=message):
        tedlium.prepare(tmp_path / "data", release=release)


def test_download_is_used(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data/TEDLIUM_release2.tar.gz")  # as left by an earlier download
    folder = tedlium.prepare(tmp_path / "data", release=2)
    assert len(read_manifest(folder / "train.jsonl")) == 4


def test_hostile_archive_writes_nothing_outside(tmp_path: Path) -> None:
    links = [("TEDLIUM_release2/train/sph", "/tmp"), ("TEDLIUM_release2/dev/stm/CatDoe_2010.stm", "/etc/passwd")]
    folder = tedlium.prepare(tmp_path / "data", write_archive(tmp_path / "a.tgz", release2(), links))
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    outside = release2() | {"TEDLIUM_release2/train/stm/../../../../x.stm": b"x"}
    message = (
        r"must hold only files and folders with relative paths without \.\., "
        r"got the file '.*/\.\./x\.stm'\. Do not use"
    )
    refused(tmp_path / "b", write_archive(tmp_path / "b.tgz", outside), message)

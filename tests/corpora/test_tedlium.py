"""corpora/tedlium.py, on small archives of both releases' layouts: synthesised talks as big-endian Sphere, and STM."""

import functools
import importlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile

from ds2_jax.config import DataConfig
from ds2_jax.corpora import CORPORA, split_manifests, tedlium
from ds2_jax.corpora.archive import extract
from ds2_jax.corpora.synthetic import Prompt, speak
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError

RATE = 16_000
SPLITS = ("train", "dev", "test")
TALKS = {"train": ("AnnLee_2009P", "BobRay_2012X"), "dev": ("CatDoe_2010",), "test": ("DanPoe_2011",)}
SENTENCES = ("it is an honour to be here", "so what do we do now", "they all laughed")
PAUSE = 4000
Files = dict[str, bytes]
Links = Sequence[tuple[str, str]]


@functools.cache
def talk(voice: int) -> np.ndarray:
    """[S] int16, three sentences and pauses between them."""
    spoken = speak("en", [Prompt(sentence, 170 + voice, 50, 0.5) for sentence in SENTENCES])
    padded = [np.pad(waveform, (PAUSE, 0)) for waveform in spoken]
    return (np.concatenate(padded) * 2**15).astype(np.int16)


@functools.cache
def sphere(voice: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, talk(voice), RATE, "PCM_16", endian="BIG", format="NIST")
    assert b"sample_byte_format -s2 10\n" in file.getvalue()
    return file.getvalue()


def stm(name: str, *lines: str) -> bytes:
    """`lines` without the three fields in front of the start."""
    return "".join(f"{name} 1 {name} {line}\n" for line in lines).encode()


LINES = (
    "0 0.25 <o,,unknown> ignore_time_segment_in_scoring",
    "0.25 1.23456 <o,f0,male> it 's an honour(2) {NOISE} to be <sil> here <unk>",
    "1.5 2.75 <o,f0,male> so what 'd we do",
)
CLEANED = ["it's an honour to be here", "so what'd we do"]


def talks_in(folder: str, split: str) -> Files:
    files: Files = {}
    for name in TALKS[split]:
        voice = [name for names in TALKS.values() for name in names].index(name)
        files[f"{folder}/sph/{name}.sph"] = sphere(voice)
        files[f"{folder}/stm/{name}.stm"] = stm(name, *LINES)
    return files


def release2() -> Files:
    files = {"TEDLIUM_release2/README": b"", "TEDLIUM_release2/TEDLIUM.152k.dic": b"a AH\n"}
    for split in SPLITS:
        files |= talks_in(f"TEDLIUM_release2/{split}", split)
    return files


R3 = "TEDLIUM_release-3"


def release3() -> tuple[Files, Links]:
    """legacy/train links into data/, which also holds a talk that it does not name."""
    files = talks_in(f"{R3}/data", "train")
    files |= {f"{R3}/data/sph/EveFox_2014.sph": sphere(0), f"{R3}/data/stm/EveFox_2014.stm": stm("EveFox_2014", *LINES)}
    for split in ("dev", "test"):
        files |= talks_in(f"{R3}/legacy/{split}", split)
    links = [
        (f"{R3}/legacy/train/{kind}/{name}.{kind}", f"../../../data/{kind}/{name}.{kind}")
        for name in TALKS["train"]
        for kind in ("sph", "stm")
    ]
    return files, links


def write_archive(path: Path, files: Mapping[str, bytes | None], links: Links = ()) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in files.items():
            if content is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "TEDLIUM_release2.tar.gz", release2())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}


def prepare_changed(tmp_path: Path, changes: Mapping[str, bytes | None]) -> Path:
    return tedlium.prepare(tmp_path / "data", write_archive(tmp_path / "changed.tar.gz", {**release2(), **changes}))


def with_segments(tmp_path: Path, *lines: str) -> Path:
    """Release 2, with `lines` as the segments of the first training talk."""
    return prepare_changed(
        tmp_path, {"TEDLIUM_release2/train/stm/AnnLee_2009P.stm": stm("AnnLee_2009P", *lines, "0.25 1 <F0_M> good")}
    )


@pytest.mark.parametrize("release", [2, 3])
def test_segments_are_cut_to_the_sample(tmp_path: Path, release: int) -> None:
    files, links = (release2(), ()) if release == 2 else release3()
    folder = tedlium.prepare(tmp_path / "data", write_archive(tmp_path / "a.tgz", files, links))
    assert folder == tmp_path / "data/tedlium"
    assert json.loads((folder / "source.json").read_text())["release"] == release
    voice = 0
    for split in SPLITS:
        rows = read_manifest(folder / f"{split}.jsonl")
        assert [row.speaker for row in rows] == [name for name in TALKS[split] for _ in CLEANED]
        assert [row.transcript for row in rows] == CLEANED * len(TALKS[split])
        assert [row.id for row in rows] == [f"{name}-{line:04d}" for name in TALKS[split] for line in (2, 3)]
        for index, row in enumerate(rows):
            assert row.audio == folder / "audio" / split / row.speaker / f"{row.id}.flac"
            assert soundfile.info(row.audio).subtype == "PCM_16"
            samples, rate = soundfile.read(row.audio, dtype="int16")
            assert rate == RATE
            start, end = ((4000, 19753), (24000, 44000))[index % 2]  # 1.23456 s is sample 19752.96
            np.testing.assert_array_equal(samples, talk(voice + index // 2)[start:end])
            assert row.duration == len(samples) / RATE
        voice += len(TALKS[split])
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["audio", "stm"]
    assert not [path for path in folder.rglob("*") if path.is_symlink() or path.suffix == ".sph"]


def test_training_set_of_release_3_is_that_of_legacy(tmp_path: Path) -> None:
    files, links = release3()
    folder = tedlium.prepare(tmp_path / "a", write_archive(tmp_path / "a.tgz", files, links))
    assert left_out(folder)["EveFox_2014"] == ("not in the split", "legacy/train does not name it")


def test_links_without_legacy_train_or_into_dev(tmp_path: Path) -> None:
    """A copy without links takes all of data/, but never a talk of dev or test; dev may be linked too."""
    files, _ = release3()
    files |= {name.replace("legacy/test", "data"): content for name, content in files.items() if "legacy/test" in name}
    linked = {name: content for name, content in files.items() if "legacy/dev" in name}
    files = {name.replace("legacy/dev", "data"): content for name, content in files.items()}
    archive = write_archive(tmp_path / "a.tgz", files, [(name, "/etc/passwd") for name in linked])
    folder = tedlium.prepare(tmp_path / "data", archive)
    assert {row.speaker for row in read_manifest(folder / "train.jsonl")} == {*TALKS["train"], "EveFox_2014"}
    assert {row.speaker for row in read_manifest(folder / "dev.jsonl")} == {"CatDoe_2010"}
    assert left_out(folder)["DanPoe_2011"] == ("not in the split", "it is in dev or test")


def test_segments_fit_no_recording_of_another_folder(tmp_path: Path) -> None:
    """The same talk lies in data/ and legacy/ as different recordings."""
    files, links = release3()
    files |= {f"{R3}/legacy/dev/stm/GusHay_2013.stm": stm("GusHay_2013", *LINES)}
    files[f"{R3}/data/sph/GusHay_2013.sph"] = sphere(0)
    folder = tedlium.prepare(tmp_path / "data", write_archive(tmp_path / "a.tgz", files, links))
    missing = f"the archive holds no {R3}/legacy/dev/sph/GusHay_2013.sph"
    assert left_out(folder)["GusHay_2013"] == ("missing audio", missing)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("<o,f0,male> i 'm sure you 've", "i'm sure you've"),
        ("<F0_M> i 'd 've gone", "i'd've gone"),
        ("<NA the parents ' home isn 't", "<NA the parents' home isn't"),
        ("<o,f0,female> get 'em 'cause 's all", "get 'em 'cause's all"),
        ("<o,f0,female> 's all right", "'s all right"),
        ("<o,f4,male> a(2) read(13) {COUGH} <unk> [LAUGH] <sil>", "a read"),
        ("<o,f4,male> thankfully<unk> {SMACK}", "thankfully"),
        ("<o,f0,male> {NOISE} <unk>", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert tedlium.clean(text) == cleaned


def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = len(talk(0)) / RATE
    lines = (
        "1 2 <o,f0,male> IGNORE_TIME_SEGMENT_IN_SCORING",
        "2 2 <o,f0,male> no length",
        "3 2 <o,f0,male> negative length",
        "-1 2 <o,f0,male> negative start",
        f"{seconds - 1} {seconds + 0.6} <o,f0,male> too long",
        f"{seconds} {seconds + 0.1} <o,f0,male> behind the end",
        "1.000001 1.000002 <o,f0,male> less than a sample",
        "1 inf <o,f0,male> no end",
        "1 nan <o,f0,male> no number",
        "1 two <o,f0,male> no number",
        "1",
        "1 2 <o,f0,male> {NOISE}",
        "1 2 <o,f0,male>",
    )
    folder = with_segments(tmp_path, *lines)
    rows = [row for row in read_manifest(folder / "train.jsonl") if row.speaker == "AnnLee_2009P"]
    assert [row.transcript for row in rows] == ["good"]
    reasons = [left_out(folder)[f"AnnLee_2009P-{line:04d}"][0] for line in range(1, len(lines) + 1)]
    outside, unusable, empty = "outside the recording", "unusable line", "empty transcript"
    assert reasons == ["not transcribed", *[outside] * 7, *[unusable] * 3, *[empty] * 2]
    detail = left_out(folder)["AnnLee_2009P-0005"][1]
    assert re.fullmatch(
        r"must lie within the [\d.]+ s of TEDLIUM_release2/train/sph/AnnLee_2009P\.sph, got [\d.]+ to .* s", detail
    )
    counts = "left out 14: 7 outside the recording, 3 unusable line, 2 not transcribed, 2 empty transcript; "
    assert f"{counts}{folder / 'left_out.jsonl'} names them\n" in capsys.readouterr().err


def test_segment_that_ends_a_little_behind_its_talk(tmp_path: Path) -> None:
    seconds = len(talk(0)) / RATE
    folder = with_segments(tmp_path, f"1 {seconds + 0.4} <o,f0,male> to the end")
    row = read_manifest(folder / "train.jsonl")[0]
    np.testing.assert_array_equal(soundfile.read(row.audio, dtype="int16")[0], talk(0)[RATE:])
    assert row.duration == (len(talk(0)) - RATE) / RATE


def test_talks_that_cannot_be_used(tmp_path: Path) -> None:
    shorten = sphere(1).replace(b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00", 1)
    folder = "TEDLIUM_release2/train"
    changes: dict[str, bytes | None] = {
        f"{folder}/sph/BobRay_2012X.sph": shorten,
        f"{folder}/sph/Cut_2012X.sph": sphere(0)[:-1000],
        f"{folder}/stm/Cut_2012X.stm": stm("Cut_2012X", *LINES),
        f"{folder}/stm/NoSound.stm": stm("NoSound", *LINES),
        f"{folder}/sph/NoText.sph": sphere(0),
        f"{folder}/sph/Latin1.sph": sphere(0),
        f"{folder}/stm/Latin1.stm": b"Latin1 1 Latin1 0 1 <o,f0,male> caf\xe9\n",
        f"{folder}/sph/Comments.sph": sphere(0),
        f"{folder}/stm/Comments.stm": b";; LABEL\n\n",
    }
    prepared = prepare_changed(tmp_path, changes)
    named = left_out(prepared)
    assert named["BobRay_2012X"][0] == named["Cut_2012X"][0] == "unreadable audio"
    assert named["Cut_2012X"][1].startswith(f"{folder}/sph/Cut_2012X.sph must hold the {len(talk(0))} samples")
    assert named["NoSound"] == ("missing audio", f"the archive holds no {folder}/sph/NoSound.sph")
    assert named["NoText"] == ("not transcribed", f"the archive holds no {folder}/stm/NoText.stm")
    assert named["Latin1"][0] == "unusable line"
    assert {row.speaker for row in read_manifest(prepared / "train.jsonl")} == {"AnnLee_2009P"}


def test_summary_and_second_run(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tedlium.prepare(tmp_path / "data", archive)
    output = capsys.readouterr()
    assert output.out == ""
    assert f"tedlium: TED-LIUM release 2, from {archive}\n" in output.err
    assert "  train  0.00 h  4 utterances  2 speakers  20 words\n" in output.err
    assert "         left out 2: 2 not transcribed; " in output.err
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert tedlium.prepare(tmp_path / "data", archive, 2) == folder
    archive.unlink()
    assert tedlium.prepare(tmp_path / "data", archive) == tedlium.prepare(tmp_path / "data") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"tedlium must be made with release 3, got 2\. Delete the folder, or choose"):
        tedlium.prepare(tmp_path / "data", release=3)


def test_training_prepares_it(archive: Path, tmp_path: Path) -> None:
    data = DataConfig(corpus="tedlium", root=tmp_path, archive=archive)
    assert split_manifests(data, build=True).dev == tmp_path / "tedlium/dev.jsonl"
    assert "tedlium" in CORPORA


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
    """Stopped in the third talk: the first two are neither unpacked nor cut again."""
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
    """The machine went down before the journal was on disk: the talk must not be left out for good."""
    with monkeypatch.context() as patch:
        patch.setattr(tedlium, "finish", lambda *_: pytest.fail("stop"))
        with pytest.raises(pytest.fail.Exception):
            tedlium.prepare(tmp_path / "data", archive)
    partial = tmp_path / "data/tedlium.partial"
    (partial / "talks.jsonl").write_text("")
    message = rf"talks/train/AnnLee_2009P\.sph must be there to be cut, got none\. Delete {partial} and run again\.$"
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
    assert list((tmp_path / "data").iterdir()) == []


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
    refused(tmp_path, archive, r"release2\.tar\.gz must be a whole \.tar\.gz archive, got: ")


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/no\.tgz must be a file, got none of that name\. Correct the path\.$"):
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
    message = rf"/{name} must be downloadable, got .*refused.* prepare tedlium --archive FILE\.$"
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
    message = r"must hold nothing but files and folders below its own, got the file '.*/\.\./x\.stm'\. Do not use"
    refused(tmp_path / "b", write_archive(tmp_path / "b.tgz", outside), message)

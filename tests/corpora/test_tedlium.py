"""TED-LIUM from small archives in the layouts of both releases: synthesised talks as big-endian Sphere, and STM."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.config import DataConfig
from ds2_jax.corpora import CORPORA, split_manifests, tedlium
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError
from tests.corpora.tedlium_archives import (
    LINES,
    RATE,
    SPLITS,
    TALKS,
    Files,
    Links,
    left_out,
    release2,
    sphere,
    stm,
    talk,
    talks_in,
    write_archive,
)

CLEANED = ["it's an honour to be here", "so what'd we do"]


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


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "TEDLIUM_release2.tar.gz", release2())


def prepare_changed(tmp_path: Path, changes: Mapping[str, bytes | None]) -> Path:
    return tedlium.prepare(tmp_path / "data", write_archive(tmp_path / "changed.tar.gz", {**release2(), **changes}))


def with_segments(tmp_path: Path, *lines: str) -> Path:
    """Prepares release 2 with `lines` as the segments of the first training talk."""
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
    """A copy without links uses all of data/, but never a talk of dev or test; dev may be linked too."""
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
    missing = "the archive holds no recording for GusHay_2013.stm"
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
    assert named["NoSound"] == ("missing audio", "the archive holds no recording for NoSound.stm")
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

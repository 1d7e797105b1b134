"""The contents of packs, which are equal however they are written, and packs that were stopped."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.config.settings import ENGLISH
from ds2_jax.corpora import an4
from ds2_jax.curation import pack as pack_lib
from ds2_jax.curation.pack import pack
from ds2_jax.curation.pack_shard import NOTES, Task, read_note, write_shard
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_epoch
from ds2_jax.data.splits import Split, digest, read_utterances
from ds2_jax.data.tfds import TfdsSplit
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import write_noise_manifest
from tests.tfds_sets import librispeech, prepare

RATE = 16_000
KINDS = {
    "a.wav": ("PCM_16", 16_000, 1),
    "b.wav": ("PCM_16", 44_100, 2),
    "c.wav": ("FLOAT", 16_000, 1),
    "d.wav": ("PCM_24", 16_000, 1),
    "e.flac": ("PCM_16", 16_000, 1),
    "f.flac": ("PCM_24", 8_000, 2),
    "g.ogg": ("VORBIS", 16_000, 1),
    "h.mp3": ("MPEG_LAYER_III", 16_000, 1),
    "i.wav": ("PCM_16", 16_000, 9),
}
"""Subtype, Hz and channels of files of different kinds."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """Makes a manifest of `KINDS`."""
    utterances = []
    for index, (name, (subtype, rate, channels)) in enumerate(KINDS.items()):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, (rate // 2 + 7 * index, channels))
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        duration = soundfile.info(tmp_path / name).duration
        utterances.append(Utterance(tmp_path / name, duration, f"KIND {name[0]}", name, f"speaker{index % 2}"))
    write_manifest(tmp_path / "kinds.jsonl", utterances)
    return tmp_path / "kinds.jsonl"


def contents(folder: Path) -> dict[str, str]:
    """Computes the digests of all files by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def epoch(utterances: list[Utterance]) -> list[dict[str, np.ndarray]]:
    num_samples = np.array([each.num_samples(RATE) for each in utterances])
    plan = plan_epoch(num_samples, batch_size=4, num_buckets=2, hop_length=160, seed=0, epoch=1)
    settings: Any = {"sample_rate": RATE, "hop_length": 160, "num_workers": 2}
    return list(batches(plan, Split(utterances, Alphabet(ENGLISH)), **settings))


def test_batches_of_real_speech_are_those_of_the_manifest(an4_archive: Path, tmp_path: Path) -> None:
    utterances = read_manifest(an4.prepare(tmp_path, an4_archive) / "dev.jsonl")[:40]
    # Rounded durations, and an unsorted order: the pack must keep both.
    utterances = [dataclasses.replace(each, duration=round(each.duration, 2)) for each in utterances[::-1]]
    write_manifest(tmp_path / "train.jsonl", utterances)
    out = tmp_path / "pack"
    assert pack((str(tmp_path / "train.jsonl"),), str(out), shard_mb=1) == 0
    assert len(list(out.glob("speech-train.array_record-*"))) > 1
    packed = read_utterances(Path(f"tfds:{out}#train"))
    alphabet = Alphabet(ENGLISH)
    assert digest(Split(packed, alphabet)) == digest(Split(utterances, alphabet))
    assert [each.speaker for each in packed] == [each.speaker for each in utterances]
    expected, got = epoch(utterances), epoch(packed)
    assert len(expected) == 10
    for one, other in zip(expected, got, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
    assert not (tmp_path / "cache/ds2_jax").exists()  # nothing was counted


def test_every_kind_of_file_is_kept_without_loss(
    kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    pack((f"every={kinds}",), str(out))
    printed = capsys.readouterr()
    assert printed.out == f"tfds:{out}#every\n"
    assert re.search(r"^  every  0\.00 h  \d\.\d MB in 1 file  2 16-bit samples as FLAC, 7 copied$", printed.err, re.M)
    source = tfds.builder_from_directory(out).as_data_source("every")  # as any user of TFDS reads it
    assert len(source) == len(KINDS)
    for utterance, packed, example in zip(
        read_manifest(kinds), read_utterances(Path(f"tfds:{out}#every")), source, strict=True
    ):
        assert packed.record is not None
        np.testing.assert_array_equal(packed.record.read(RATE), read_audio(utterance.audio, RATE))
        converted = utterance.id in ("a.wav", "b.wav")
        assert (example["audio"] == utterance.audio.read_bytes()) is not converted
        assert example["audio"].startswith(b"fLaC") is (converted or utterance.audio.suffix == ".flac")
        assert (example["id"], example["text"]) == (utterance.id.encode(), utterance.transcript.encode())


def test_segments_become_files_of_their_own(kinds: Path, tmp_path: Path) -> None:
    whole = read_manifest(kinds)
    segments = [dataclasses.replace(each, offset=at, duration=0.2) for each in whole for at in (0.0, 0.25)]
    segments = [dataclasses.replace(each, id=str(i)) for i, each in enumerate(segments)]
    write_manifest(tmp_path / "parts.jsonl", segments)
    out = tmp_path / "pack"
    pack((str(tmp_path / "parts.jsonl"),), str(out))
    for ours, theirs in zip(segments, read_utterances(Path(f"tfds:{out}#parts")), strict=True):
        assert (theirs.id, theirs.duration) == (ours.id, 0.2)
        np.testing.assert_array_equal(theirs.samples()[0], ours.samples()[0])
        np.testing.assert_array_equal(theirs.read(RATE), ours.read(RATE))


def test_a_part_of_a_split_is_read_too(kinds: Path, tmp_path: Path) -> None:
    pack((str(kinds),), str(tmp_path / "pack"))
    whole = read_utterances(Path(f"tfds:{tmp_path / 'pack'}#kinds"))
    part = read_utterances(Path(f"tfds:{tmp_path / 'pack'}#kinds[2:5]"))
    assert [each.id for each in part] == [each.id for each in whole[2:5]]
    assert [each.duration for each in part] == [each.duration for each in whole[2:5]]


def test_the_features_of_a_record_are_in_their_order(kinds: Path, tmp_path: Path) -> None:
    """TFDS orders features at random, so that two processes would write different bytes."""
    pack((str(kinds),), str(tmp_path / "pack"))
    split = TfdsSplit(Path(f"tfds:{tmp_path / 'pack'}#kinds"))
    for index in range(len(KINDS)):
        record = split.record(index)
        places = [record.rindex(b"\n%c%s\x12" % (len(name), name)) for name in (b"audio", b"id", b"speaker", b"text")]
        assert places == sorted(places)


def test_a_shard_that_was_cut_is_not_believed(kinds: Path, tmp_path: Path) -> None:
    [task] = pack_lib.plan("all", kinds, str(tmp_path / "pack"), 10**9)
    write_shard(task)
    note = read_note(task)
    assert note is not None
    assert len(note.rows) == len(KINDS)
    content = task.shard.read_bytes()
    for damaged in ("", "[]", '{"rows": [], "problems": [1]}', "[" * 100_000):
        task.note.write_text(damaged)
        assert read_note(task) is None
    task.shard.write_bytes(content[:-1])
    assert read_note(task) is None
    write_shard(task)
    assert task.shard.read_bytes() == content


def split_up(monkeypatch: pytest.MonkeyPatch, num_bytes: int = 60_000) -> None:
    """Makes small files, whatever number of megabytes is requested."""
    plan = pack_lib.plan
    monkeypatch.setattr(pack_lib, "plan", lambda split, path, out, _: plan(split, path, out, num_bytes))


def test_the_bytes_are_the_same_for_any_worker_and_after_a_stop(
    kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    split_up(monkeypatch)
    pack((str(kinds),), str(tmp_path / "one"), num_workers=1)
    pack((str(kinds),), str(tmp_path / "four"), num_workers=4)
    assert len(list((tmp_path / "one").glob("*.array_record-*"))) > 3
    assert contents(tmp_path / "one") == contents(tmp_path / "four")

    written: list[int] = []

    def stop_at_the_third(task: Task) -> None:
        if task.number == 2:
            (tmp_path / "cut" / NOTES / "left.tmp").write_bytes(b"by a kill")
            task.shard.write_bytes(b"half a file")
            raise KeyboardInterrupt
        write_shard(task)

    def watched(task: Task) -> None:
        written.append(task.number)
        write_shard(task)

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(pack_lib, "write_shard", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            pack((str(kinds),), str(out), num_workers=1)
    with pytest.raises(InputError, match=r"must name a folder with a data set, got no dataset_info\.json"):
        read_utterances(Path(f"tfds:{out}#kinds"))
    first = sorted(out.glob("*.array_record-*"))[0]
    (out / NOTES / "kinds-00001.json").write_text('{"digest": "cut sho')
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    pack((str(kinds),), str(out), num_workers=2)
    # The first, and those that the worker had started before the stop.
    assert re.search(rf"^{out}: continuing, [1-4] of 6 files exist$", capsys.readouterr().err, re.MULTILINE)
    assert first.stat().st_mtime_ns == before
    assert contents(out) == contents(tmp_path / "one")

    monkeypatch.setattr(pack_lib, "write_shard", watched)
    pack((str(kinds),), str(out))
    assert not written
    assert capsys.readouterr().err == f"{out}: already complete\n"


def test_beam_writes_the_same_bytes(kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_up(monkeypatch)
    pack((str(kinds),), str(tmp_path / "threads"))
    words = ["data", "pack", str(kinds), "--out", str(tmp_path / "beam"), "--beam-runner", "DirectRunner"]
    assert cli.main([*words, "--", "--direct_num_workers=1"]) == 0
    assert contents(tmp_path / "beam") == contents(tmp_path / "threads")


def test_what_beam_cannot_do_is_said(
    kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: Any = {"sources": (str(kinds),), "out": str(tmp_path / "pack")}
    with pytest.raises(
        InputError, match=r"^--beam-runner NoRunner must write the files, got: Unexpected pipeline runner"
    ):
        pack(**arguments, beam_runner="NoRunner")
    assert cli.main(["data", "pack", str(kinds), "--out", str(tmp_path / "pack"), "--", "--x", "a b"]) == 1
    assert capsys.readouterr().err == "error: --beam-options must be used with --beam-runner, got \"--x 'a b'\".\n"
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    message = r"^--beam-runner must find Apache Beam, got: .* Install it: pip install 'apache-beam>=2\.73,<3'\.$"
    with pytest.raises(InputError, match=message):
        pack(**arguments, beam_runner="DirectRunner")


def test_changed_sources_rewrite_what_they_change_and_leave_no_old_files(
    kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up(monkeypatch, 30_000)
    out = tmp_path / "pack"
    with monkeypatch.context() as patch:
        patch.setattr(pack_lib, "finish", lambda *_: None)
        pack((str(kinds), f"old={kinds}"), str(out))
    assert list(out.glob("speech-old.*"))
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("speech-kinds.*")}
    soundfile.write(tmp_path / "e.flac", np.zeros(8_028), RATE)  # smaller, and so fewer files
    split_up(monkeypatch, 30_000)
    pack((str(kinds),), str(out))
    assert not list(out.glob("speech-old.*"))
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("speech-kinds.*")}
    assert len(read_utterances(Path(f"tfds:{out}#kinds"))) == len(KINDS)
    pack((str(kinds),), str(tmp_path / "fresh"))
    assert contents(out) == contents(tmp_path / "fresh")
    assert times != after


def test_a_mended_file_rewrites_only_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_noise_manifest(tmp_path, ("GO",) * 6, "some")
    broken = tmp_path / "some4.wav"
    content = broken.read_bytes()
    broken.write_bytes(content[:-100] + b"")
    split_up(monkeypatch, 20_000)
    out = tmp_path / "pack"
    message = (
        "SOURCE must hold only recordings that can be read, got 1 of 6 that cannot: 1 unreadable audio. Replace them, "
        "or leave them out with --on-bad-utterance skip; files already written are kept. The first unreadable "
        f"recordings: some4 ({broken} must hold the 22400 bytes of audio that its header states, got 22300. Replace "
        "the recording.)."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pack((str(manifest),), str(out))
    assert not (out / "dataset_info.json").exists()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("speech-*")}
    broken.write_bytes(content)
    pack((str(manifest),), str(out))
    changed = [name for name, time in times.items() if (out / name).stat().st_mtime_ns != time]
    assert len(times) == 6
    assert changed == ["speech-some.array_record-00004-of-00006"]
    assert len(read_utterances(Path(f"tfds:{out}#some"))) == 6


def test_bad_recordings_are_left_out_on_request_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_noise_manifest(tmp_path, ("GO", "YES", "NO", "GO"), "some")
    (tmp_path / "some1.wav").unlink()
    split_up(monkeypatch, 10_000)  # a file holds one utterance, so one file holds none
    out = tmp_path / "pack"
    pack((str(manifest),), str(out), on_bad_utterance="skip")
    assert [each.id for each in read_utterances(Path(f"tfds:{out}#some"))] == ["some0", "some2", "some3"]
    [left_out] = map(json.loads, (out / "left_out.jsonl").read_text().splitlines())
    assert (left_out["id"], left_out["reason"]) == ("some1", "unreadable audio")
    assert f"left out 1: 1 unreadable audio; {out / 'left_out.jsonl'} names them" in capsys.readouterr().err
    utterances = read_utterances(Path(f"tfds:{out}#some"))
    assert len(epoch(utterances)) == 1
    for each in utterances:
        (tmp_path / f"{each.id}.wav").unlink()
    with pytest.raises(InputError, match=r"^Split some must hold a recording that can be read, got none"):
        pack((str(manifest),), str(tmp_path / "nothing"), on_bad_utterance="skip")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_set_of_tfds_is_rewritten(
    tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {
            "speech": rng.integers(-9_000, 9_000, 3_200 + 160 * i, np.int16),
            "text": "GO",
            "speaker_id": i,
            "chapter_id": 0,
            "id": f"u{i}",
        }
        for i in range(12)
    ]
    folder = prepare(tmp_path, {"train": rows}, librispeech(), file_format)
    split_up(monkeypatch, 20_000)
    out = tmp_path / "pack"
    pack((f"tfds:{folder}#train", f"part=tfds:{folder}#train[25%:]"), str(out))
    packed = read_utterances(Path(f"tfds:{out}#train"))
    assert len(list(out.glob("speech-train.array_record-*"))) > 2
    assert sorted(each.id for each in packed) == sorted(row["id"] for row in rows)
    for each in packed:
        row = rows[int(each.id[1:])]
        assert each.record is not None
        np.testing.assert_array_equal(each.record.read(RATE), row["speech"] / np.float32(2**15))
        assert (each.duration, each.speaker) == (len(row["speech"]) / RATE, str(row["speaker_id"]))
    part = read_utterances(Path(f"tfds:{out}#part"))
    assert [each.id for each in part] == [each.id for each in packed[3:]]


def test_a_folder_that_holds_something_else_is_left_alone(kinds: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    message = f"--out must be a new folder, got {other}, which holds mine.txt. Give another --out."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pack((str(kinds),), str(other))
    assert contents(other).keys() == {"mine.txt"}
    pack((str(kinds),), str(tmp_path / "pack"))
    message = (
        f"--out must be a new folder, got {tmp_path / 'pack'}, which holds a data set made from other sources or "
        "with another --shard-mb. Delete it, or give another --out."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pack((f"train={kinds}",), str(tmp_path / "pack"))


def test_a_packs_damaged_length_table_is_named(kinds: Path, tmp_path: Path) -> None:
    pack((str(kinds),), str(tmp_path / "pack"))
    table = tmp_path / "pack/lengths-kinds.jsonl"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    message = f"{table} must list each of the 9 records, got a damaged table. Pack the set again."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_utterances(Path(f"tfds:{tmp_path / 'pack'}#kinds"))

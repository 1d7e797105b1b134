"""corpora/common_voice.py, on small releases of the published layouts with speech as MP3."""

import functools
import importlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ds2_jax.audio.reading import decoded_duration, read_audio
from ds2_jax.config import DataConfig
from ds2_jax.corpora import CORPORA, common_voice, split_manifests
from ds2_jax.corpora.archive import extract
from ds2_jax.corpora.synthetic import SAMPLE_RATE, Prompt, speak
from ds2_jax.data.manifest import read_manifest
from ds2_jax.system.errors import InputError

FR = "cv-corpus-22.0-2025-06-20/fr"
SPLITS = ("train", "dev", "test")
SENTENCES = {
    "train": ["« Où est l'eau ? »", 'Il a dit "non', "L'arc-en-ciel.", "Quatre\u2028lignes", 'Puis "oui" encore'],
    "dev": ["Bonjour."],
    "test": ["Deux", "Trois"],
}
HEADER = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant"
Files = dict[str, bytes]


@functools.cache
def speech() -> list[np.ndarray]:
    """Eight French sentences, [S] float32 at SAMPLE_RATE."""
    sentences = [sentence for split in SPLITS for sentence in SENTENCES[split]]
    return speak("fr", [Prompt(sentence, 175, 50, 0.5) for sentence in sentences])


@functools.cache
def mp3(index: int, rate: int = 32_000) -> bytes:
    file = io.BytesIO()
    waveform = soxr.resample(speech()[index], SAMPLE_RATE, rate)
    soundfile.write(
        file, waveform, rate, format="MP3", bitrate_mode=("VARIABLE", "CONSTANT")[index % 2], compression_level=0.5
    )
    return file.getvalue()


def client(number: int) -> str:
    """A client_id of 128 characters; those of 0 and 1 are alike in the first nine."""
    return f"{'abcdef012' if number < 2 else f'{number:09d}'}{number:0119d}"


def row(number: int, sentence: str) -> str:
    return (
        f"{client(number)}\tcommon_voice_fr_{number}.mp3\tx{number}\t{sentence}\t\t2\t0\ttwenties\tmale_masculine\t\t"
    )


def release(corpus: str = FR) -> Files:
    """A release: the splits' clips are numbered from 0; an unvalidated and an invalidated clip follow."""
    files: Files = {}
    number = 0
    for split, sentences in SENTENCES.items():
        lines = [HEADER]
        for sentence in sentences:
            lines.append(row(number, sentence))
            files[f"{corpus}/clips/common_voice_fr_{number}.mp3"] = mp3(number, 48_000 if number == 3 else 32_000)
            number += 1
        files[f"{corpus}/{split}.tsv"] = ("\n".join(lines) + "\n").encode()
    for name in ("other", "invalidated"):
        files[f"{corpus}/{name}.tsv"] = f"{HEADER}\n{row(number, 'Faux')}\n".encode()
        files[f"{corpus}/clips/common_voice_fr_{number}.mp3"] = mp3(0)
        number += 1
    return files


def write_archive(path: Path, files: Files, links: Sequence[tuple[str, str]] = ()) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "fr.tar.gz", release())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(tmp_path: Path, changes: dict[str, bytes | None]) -> Path:
    files = {name: content for name, content in (release() | changes).items() if content is not None}
    return write_archive(tmp_path / "changed.tar.gz", files)


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["reason"], row["detail"]) for row in rows}


def test_every_row_of_the_splits_and_no_other(archive: Path, tmp_path: Path) -> None:
    """The first row too, which deepspeech.pytorch loses; quotation marks and U+2028 are ordinary characters."""
    folder = common_voice.prepare(tmp_path / "data", archive)
    assert folder == tmp_path / "data/common-voice"
    for split in SPLITS:
        rows = read_manifest(folder / f"{split}.jsonl")
        assert [utterance.transcript for utterance in rows] == SENTENCES[split]
    assert sorted(path.name for path in (folder / "clips").iterdir()) == [f"common_voice_fr_{i}.mp3" for i in range(8)]
    assert not (folder / "left_out.jsonl").exists()


def test_clips_are_those_of_the_release_and_durations_are_exact(archive: Path, tmp_path: Path) -> None:
    folder = common_voice.prepare(tmp_path / "data", archive)
    rows = [utterance for split in SPLITS for utterance in read_manifest(folder / f"{split}.jsonl")]
    for index, utterance in enumerate(rows):
        assert utterance.id == f"common_voice_fr_{index}"
        assert utterance.audio.read_bytes() == release()[f"{FR}/clips/common_voice_fr_{index}.mp3"]
        samples, rate = soundfile.read(utterance.audio)
        assert utterance.duration == len(samples) / rate
        waveform = read_audio(utterance.audio, SAMPLE_RATE)
        assert abs(len(waveform) - utterance.num_samples(SAMPLE_RATE)) <= 1
        # What is heard is the sentence: an MP3 begins a little late, so the best of some shifts is looked for.
        spoken = speech()[index]
        match = max(
            float(np.corrcoef(spoken[: len(piece)], piece)[0, 1])
            for shift in range(0, 1500)
            if len(piece := waveform[shift : shift + 8000])
        )
        assert match > 0.95


def test_header_of_an_mp3_that_only_estimates(tmp_path: Path) -> None:
    """Without its Info frame and with a tag, libsndfile estimates the length from the size of the file."""
    assert b"Info" in mp3(1)[:64]
    frames = mp3(1)[mp3(1).index(mp3(1)[:2], 64) :]
    clip = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256) + frames
    folder = common_voice.prepare(tmp_path / "data", changed(tmp_path, {f"{FR}/clips/common_voice_fr_1.mp3": clip}))
    utterance = read_manifest(folder / "train.jsonl")[1]
    with soundfile.SoundFile(utterance.audio) as file:
        assert utterance.duration < file.frames / file.samplerate
    assert utterance.num_samples(SAMPLE_RATE) == len(read_audio(utterance.audio, SAMPLE_RATE))


def test_speakers_are_short_and_told_apart(archive: Path, tmp_path: Path) -> None:
    folder = common_voice.prepare(tmp_path / "data", archive)
    speakers = [u.speaker for split in SPLITS for u in read_manifest(folder / f"{split}.jsonl")]
    ids = [client(number) for number in range(8)]
    length = 128 - len(str(1)) + 1  # the first two differ in their last character only
    assert speakers == [name[:length] for name in ids]
    distinct = {f"{number:03d}{'x' * 125}" for number in range(9)}
    assert set(map(len, common_voice._shorten(distinct).values())) == {8}


def test_summary_and_second_run(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = common_voice.prepare(tmp_path / "data", archive)
    output = capsys.readouterr()
    assert output.out == ""
    assert f"common-voice: Common Voice, {FR}, from {archive}\n" in output.err
    assert re.search(r"  train  0\.00 h  5 utterances  5 speakers  \d+ words\n", output.err)
    assert re.search(r"  test   0\.00 h  2 utterances  2 speakers  2 words\n", output.err)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert common_voice.prepare(tmp_path / "data", archive) == folder
    archive.unlink()
    assert common_voice.prepare(tmp_path / "data", archive, "fr") == folder
    assert common_voice.prepare(tmp_path / "data") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert capsys.readouterr().err == ""


def test_training_prepares_it(archive: Path, tmp_path: Path) -> None:
    data = DataConfig(corpus="common-voice", root=tmp_path, archive=archive)
    manifests = split_manifests(data, build=True)
    assert manifests.test == tmp_path / "common-voice/test.jsonl"
    assert len(read_manifest(manifests.test)) == 2
    assert "common-voice" in CORPORA


@pytest.mark.parametrize(
    ("corpus", "header", "cells"),
    [
        ("cv-corpus-5.1-2020-06-22/en", "client_id\tpath\tsentence\tup_votes", "a\tclip\tYes\t2"),
        (".", "client_id\tpath\tsentence\tup_votes", "a\tclip.mp3\tYes\t2"),  # releases 3 and 4
        ("cv-corpus-30/en", "sentence\tnew\tpath\tclient_id", "Yes\t\tclip.mp3\ta"),
        ("cv-corpus-30/en", "\ufeffclient_id\tpath\tsentence", "a\tclip.mp3\t Yes "),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_layouts_and_columns(tmp_path: Path, corpus: str, header: str, cells: str, end: str) -> None:
    files = {f"{corpus}/{split}.tsv": f"{header}{end}{cells}{end}".encode() for split in SPLITS}
    files[f"{corpus}/clips/clip.mp3"] = mp3(0)
    folder = common_voice.prepare(tmp_path / "data", write_archive(tmp_path / "a.tar.gz", files))
    for split in SPLITS:
        (utterance,) = read_manifest(folder / f"{split}.jsonl")
        assert (utterance.id, utterance.speaker, utterance.transcript) == ("clip", "a", "Yes")


def test_what_cannot_be_used_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        HEADER,
        *(row(number, f"Phrase {number}") for number in range(5)),
        row(20, "Sans fichier"),
        row(21, ""),
        row(22, "Une\ttabulation"),
        row(0, "Encore une fois"),
        row(23, "Chemin").replace("common_voice", "../common_voice"),
        row(24, "Nul\0"),
    ]
    changes: dict[str, bytes | None] = {
        f"{FR}/train.tsv": "\n".join(lines).encode(),
        f"{FR}/clips/common_voice_fr_1.mp3": b"",
        f"{FR}/clips/common_voice_fr_2.mp3": b"no MP3 " * 999,
        f"{FR}/clips/common_voice_fr_3.mp3": mp3(3)[: len(mp3(3)) // 2],
    }
    folder = common_voice.prepare(tmp_path / "data", changed(tmp_path, changes))
    assert [u.id for u in read_manifest(folder / "train.jsonl")] == ["common_voice_fr_0", "common_voice_fr_4"]
    named = left_out(folder)
    assert named["common_voice_fr_1"][0] == "unreadable audio"
    assert named["common_voice_fr_1"][1].startswith("clips/common_voice_fr_1.mp3 must hold audio, got an empty file")
    assert named["common_voice_fr_2"][0] == named["common_voice_fr_3"][0] == "unreadable audio"
    assert named["common_voice_fr_20"] == ("missing audio", "the archive holds no clips/common_voice_fr_20.mp3")
    assert named["common_voice_fr_21"] == ("empty transcript", "train.tsv, line 8 has no sentence")
    assert named["train.tsv, line 9"][1].startswith("train.tsv, line 9 must have 11 columns, got 12: ")
    assert named["common_voice_fr_0"][0] == named["common_voice_fr_24"][0] == "unusable line"
    assert "../common_voice_fr_23" in named
    assert len(named) == 9
    counts = "left out 9: 4 unusable line, 3 unreadable audio, 1 missing audio, 1 empty transcript; "
    assert f"{counts}{folder / 'left_out.jsonl'} names them" in capsys.readouterr().err
    assert len(read_manifest(folder / "test.jsonl")) == 2


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
    """Stopped after three clips: neither they are decoded again, nor is the archive read."""
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
    assert list((tmp_path / "data").iterdir()) == []


def test_no_archive(tmp_path: Path) -> None:
    message = r"^--archive must name a release of Common Voice, got none\. Log in at https://.* --archive FILE\.$"
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path)
    with pytest.raises(InputError, match=r"/no\.tar\.gz must be a file, got none of that name\. Correct the path\.$"):
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
    refused(tmp_path, archive, r"fr\.tar\.gz must be a whole \.tar\.gz archive, got: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"filename\ttext\n", r"train\.tsv must have the columns client_id, path, sentence, got filename, text\. Use"),
        (b"client_id\tpath\tsentence\n\xe9\n", r"train\.tsv must be UTF-8, got .* at byte 24\. Fetch it again\.$"),
    ],
)
def test_unusable_list(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "data", changed(tmp_path, {f"{FR}/train.tsv": content}))
    assert not (tmp_path / "data/common-voice").exists()


def test_hostile_archive_writes_nothing_outside(tmp_path: Path) -> None:
    """Links are left where they are, even where a list names them; a name that leads outside ends it."""
    links = [(f"{FR}/clips", "/tmp"), (f"{FR}/clips/common_voice_fr_0.mp3", "/etc/passwd"), ("clips", "..")]
    files = release()
    del files[f"{FR}/clips/common_voice_fr_0.mp3"]
    folder = common_voice.prepare(tmp_path / "data", write_archive(tmp_path / "a.tar.gz", files, links))
    assert left_out(folder)["common_voice_fr_0"][0] == "missing audio"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    outside = {f"../{split}.tsv": f"{HEADER}\n".encode() for split in SPLITS}
    message = r"must hold nothing but files and folders below its own, got the file '\.\./train\.tsv'\. Do not use"
    with pytest.raises(InputError, match=message):
        common_voice.prepare(tmp_path / "other", write_archive(tmp_path / "b.tar.gz", outside))
    assert list((tmp_path / "other").iterdir()) == []

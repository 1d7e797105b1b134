"""Common Voice from small releases of the published layouts, with speech as MP3."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio
from ds2_jax.config import DataConfig
from ds2_jax.corpora import CORPORA, common_voice, split_manifests
from ds2_jax.corpora.synthetic import SAMPLE_RATE
from ds2_jax.data.manifest import read_manifest
from tests.corpora.common_voice_archives import (
    FR,
    HEADER,
    SENTENCES,
    SPLITS,
    changed,
    client,
    left_out,
    mp3,
    release,
    row,
    speech,
    write_archive,
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "fr.tar.gz", release())


def test_every_row_of_the_splits_and_no_other(archive: Path, tmp_path: Path) -> None:
    """The first row is kept, which deepspeech.pytorch loses; quotation marks and U+2028 are ordinary characters."""
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
        # The clip contains the sentence. An MP3 starts a little late, so the test takes the best of several shifts.
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
    length = 128 - len(str(1)) + 1  # the first two differ only in their last character
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

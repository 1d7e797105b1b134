"""Merging and splitting lose no utterance, double none, and keep the audio of each."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax import cli
from ds2_jax.curation.edit import draw_split, merge, split, with_distinct_ids
from ds2_jax.data.draw import drawn_order
from ds2_jax.data.manifest import TimedWord, Utterance, read_manifest, write_manifest
from ds2_jax.system.errors import InputError

BY_UTTERANCE = "Or split with --by utterance: the splits then share voices, and error rates come out lower."


def utterance(audio: Path, key: str, speaker: str = "", seconds: float = 1.0) -> Utterance:
    return Utterance(audio, seconds, f"TEXT OF {audio}", key, speaker)


def test_merge_reads_three_formats_and_files_of_one_name_stay_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("own", "nemo", "torch"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", np.zeros(16_000), 16_000)
    write_manifest(tmp_path / "own/train.jsonl", [Utterance(tmp_path / "own/a.wav", 1.0, "OWN", "a", "ann")])
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "NEMO"}
    (tmp_path / "nemo/train.jsonl").write_text(json.dumps(row))
    (tmp_path / "torch/a.txt").write_text("TORCH")
    document = {"root_path": "", "samples": [{"wav_path": "a.wav", "transcript_path": "a.txt"}]}
    (tmp_path / "torch/train.json").write_text(json.dumps(document))
    out = tmp_path / "elsewhere/all.jsonl"
    sources = [str(tmp_path / name) for name in ("own/train.jsonl", "nemo/train.jsonl", "torch/train.json")]
    assert cli.main(["data", "merge", *sources, "--out", str(out)]) == 0
    assert read_manifest(out) == [
        Utterance(tmp_path / "own/a.wav", 1.0, "OWN", "a", "ann"),
        Utterance(tmp_path / "nemo/a.wav", 1.0, "NEMO", "train-a"),
        Utterance(tmp_path / "torch/a.wav", 1.0, "TORCH", "train-a-2"),
    ]
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 3 utterances from 3 manifests\n"
    read = f"{sources[2]}: 1 durations are read from the audio each time; data merge stores them\n"
    assert printed.err == f"{read}2 repeated ids were renamed:\n  a -> train-a\n  a -> train-a-2\n"


def test_merging_and_splitting_keep_word_times(tmp_path: Path) -> None:
    words = (TimedWord("GO", 0.0, 0.5), TimedWord("ON", 0.5, 1.0))
    rows = [Utterance(tmp_path / f"{i}.wav", 1.0, "GO ON", f"{i}", f"s{i}", words=words) for i in range(6)]
    for name, half in (("a", rows[:3]), ("b", rows[3:])):
        write_manifest(tmp_path / f"{name}.jsonl", half)
    assert merge((tmp_path / "a.jsonl", tmp_path / "b.jsonl"), tmp_path / "all.jsonl") == 0
    assert split(tmp_path / "all.jsonl", tmp_path / "splits") == 0
    found = [row for path in (tmp_path / "splits").glob("*.jsonl") for row in read_manifest(path)]
    assert [row.words for row in found] == [words] * 6


def test_merge_tells_of_recordings_that_are_listed_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    write_manifest(tmp_path / "one.jsonl", [utterance(tmp_path / "a.wav", "1"), utterance(tmp_path / "b.wav", "2")])
    write_manifest(tmp_path / "two.jsonl", [utterance(tmp_path / "link/a.wav", "3")])
    assert merge((tmp_path / "one.jsonl", tmp_path / "two.jsonl"), tmp_path / "all.jsonl") == 0
    printed = capsys.readouterr()
    assert printed.err == f"1 recordings are listed more than once:\n  {tmp_path.resolve() / 'a.wav'}\n"
    assert [each.id for each in read_manifest(tmp_path / "all.jsonl")] == ["1", "2", "3"]


ids = st.lists(st.sampled_from(["a", "b", "m-a", "m-a-2", "m-b"]), unique=True, max_size=5)


@given(st.lists(ids, min_size=1, max_size=4))
def test_ids_differ_and_everyone_keeps_its_audio(manifests: list[list[str]]) -> None:
    rows = {
        Path(f"{i}/m.jsonl"): [utterance(Path(f"{i}/{key}.wav"), key) for key in keys]
        for i, keys in enumerate(manifests)
    }
    merged, renamed = with_distinct_ids(rows)
    assert len({each.id for each in merged}) == len(merged)
    before = [each for utterances in rows.values() for each in utterances]
    assert [(each.audio, each.transcript) for each in merged] == [(each.audio, each.transcript) for each in before]
    changed = [(old.id, new.id) for old, new in zip(before, merged, strict=True) if old.id != new.id]
    assert changed == renamed


def write_speakers(path: Path, seconds: Sequence[float], each: int = 4) -> list[Utterance]:
    rows = [
        utterance(path.parent / f"{speaker}-{i}.wav", f"{speaker}-{i}", f"s{speaker:02}", length / each)
        for i in range(each)
        for speaker, length in enumerate(seconds)
    ]
    write_manifest(path, rows)
    return rows


def test_split_keeps_speakers_apart_and_loses_no_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_speakers(tmp_path / "all.jsonl", [100.0 + 10 * (i % 3) for i in range(40)])
    words = ["data", "split", f"{tmp_path}/all.jsonl", "--out", f"{tmp_path}/split", "--dev", "0.1", "--test", "0.2"]
    assert cli.main(words) == 0
    parts = {name: read_manifest(tmp_path / f"split/{name}.jsonl") for name in ("train", "dev", "test")}
    assert sorted((u for part in parts.values() for u in part), key=rows.index) == rows
    speakers = [{u.speaker for u in part} for part in parts.values()]
    assert sum(map(len, speakers)) == 40
    total = sum(u.duration for u in rows)
    shares = {name: sum(u.duration for u in part) / total for name, part in parts.items()}
    assert shares["dev"] == pytest.approx(0.1, abs=0.015)  # half a speaker
    assert shares["test"] == pytest.approx(0.2, abs=0.015)
    for part in parts.values():
        assert part == sorted(part, key=rows.index)  # in their original order
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["share", "of", "the", "hours", *(f"{x:.3f}" for x in shares.values())]
    assert printed.endswith(f"{tmp_path}/split: train.jsonl, dev.jsonl, test.jsonl, by speaker, seed 0\n")


def test_split_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    write_speakers(tmp_path / "all.jsonl", [60.0] * 20)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split(tmp_path / "all.jsonl", tmp_path / name, test=0, seed=seed)
    a, b, c = ((tmp_path / name / "dev.jsonl").read_text() for name in "abc")
    assert a == b != c
    assert not (tmp_path / "a/test.jsonl").exists()


def test_split_by_utterance(tmp_path: Path) -> None:
    write_manifest(tmp_path / "all.jsonl", [utterance(tmp_path / f"{i}.wav", f"{i}") for i in range(50)])
    split(tmp_path / "all.jsonl", tmp_path, by="utterance")
    numbers = [len(read_manifest(tmp_path / f"{name}.jsonl")) for name in ("train", "dev", "test")]
    assert numbers == [40, 5, 5]


@given(
    st.lists(st.floats(0, 1000), min_size=3, max_size=12),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    st.integers(0, 5),
)
def test_no_split_is_ever_empty(seconds: list[float], test: float, dev: float, seed: int) -> None:
    home = draw_split({f"s{i}": length for i, length in enumerate(seconds)}, {"test": test, "dev": dev}, seed)
    assert set(home.values()) == {"train", "dev", "test"}
    assert len(home) == len(seconds)


def test_a_new_speaker_leaves_the_order_of_the_others() -> None:
    names = [f"s{i}" for i in range(30)]
    order = drawn_order(names, 3)
    assert sorted(order) == sorted(names) != order
    assert [name for name in drawn_order([*names, "new"], 3) if name != "new"] == order
    assert drawn_order(names, 4) != order


def test_one_speaker_cannot_be_split_by_speaker(tmp_path: Path) -> None:
    utterances = [Utterance(tmp_path / f"{i}.wav", 1.0, "GO", str(i), "ann") for i in range(3)]
    write_manifest(tmp_path / "all.jsonl", utterances)
    with pytest.raises(InputError) as error:
        split(tmp_path / "all.jsonl", tmp_path)
    assert str(error.value) == (f"{tmp_path}/all.jsonl must hold at least 3 speakers, got 1. Add some. {BY_UTTERANCE}")
    assert split(tmp_path / "all.jsonl", tmp_path, by="utterance") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dev": -0.1}, "--dev must be a share of the hours, 0 to below 1, got -0.1."),
        ({"test": 1.0}, "--test must be a share of the hours, 0 to below 1, got 1.0."),
        ({"dev": 0.5, "test": 0.5}, "--dev and --test must add up to a share above 0 and below 1, got (0.5, 0.5)."),
        ({"dev": 0.0, "test": 0.0}, "--dev and --test must add up to a share above 0 and below 1, got (0.0, 0.0)."),
        ({}, f"{{all}} must hold at least 3 speakers, got 2. Add some, or leave out a split: --dev 0. {BY_UTTERANCE}"),
    ],
)
def test_split_says_what_it_cannot_do(options: dict[str, float], message: str, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    write_speakers(path, [60.0, 60.0])
    with pytest.raises(InputError) as error:
        split(path, tmp_path / "split", **options)  # type: ignore[arg-type]
    assert str(error.value) == message.replace("{all}", str(path))
    assert not (tmp_path / "split").exists()


def test_split_without_speakers_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    write_manifest(path, [utterance(tmp_path / f"{i}.wav", f"{i}", "ann" if i else "") for i in range(4)])
    with pytest.raises(InputError) as error:
        split(path, tmp_path)
    assert str(error.value) == (
        f"{path} must name the speaker of every utterance, got 1 of 4 without one. Add them, or split with "
        "--by utterance: the splits may then share voices, and error rates come out lower."
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_speakers(path, [60.0] * 5)
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        split(path, tmp_path)
    assert str(error.value) == f"--out must not exist yet, got {path}, which does. Delete it, or give another --out."
    with pytest.raises(InputError, match=r"^--out must not exist yet"):
        merge((path,), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

"""Training reads and checks its splits before it writes, and skips or refuses what it cannot use."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.config import DataConfig
from ds2_jax.data import pipeline
from ds2_jax.data.manifest import read_manifest, write_manifest
from ds2_jax.runs.run_folder import best_step, load_config, saved_steps
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import splits as splits_lib
from ds2_jax.training import train as train_lib
from ds2_jax.training.dry_run import dry_run
from ds2_jax.training.splits import read_splits
from ds2_jax.training.train import train
from tests.small_runs import SMALL_CONFIG, noise, with_manifests, write_noise_manifest
from tests.training.stand_ins import read_lines, without_compiling, written_test


def test_splits_and_plan_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data")
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest)
    train(dataclasses.replace(SMALL_CONFIG, epochs=1, data=data), tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        f"train: {manifest}, 3 utterances, 0.00 hours",
        "dev: none",
        "test: none",
        "each epoch: 1 batches of utterances padded to 8 x 0.6 s; 8.2% is padding, 5 rows stay empty (62.5%)",
    ]


def test_bad_utterances_are_skipped_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data", ("GO", "YES", "NO", "STOP"), name="train")
    (tmp_path / "data/train0.wav").unlink()
    samples = noise(0.55)
    samples[100] = np.nan  # found only when the audio is decoded
    soundfile.write(tmp_path / "data/train1.wav", samples, 16_000, subtype="FLOAT")
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest, on_bad_utterance="skip")
    train(dataclasses.replace(SMALL_CONFIG, epochs=2, data=data), tmp_path / "run")
    [missing] = read_lines(tmp_path / "run/skipped_train.jsonl")
    assert (missing["id"], missing["reason"]) == ("train0", "missing audio")
    [damaged] = read_lines(tmp_path / "run/skipped_while_reading.jsonl")
    assert (damaged["id"], damaged["reason"]) == ("train1", "unreadable audio")
    errors = capsys.readouterr().err
    assert "train: 1 of 4 utterances left out (1 missing audio)" in errors
    assert errors.count("left out: train1 (unreadable audio: ") == 1
    first_step, first_epoch, *_ = read_lines(tmp_path / "run/metrics.jsonl")
    assert first_epoch["empty_share"] == 6 / 8
    assert first_step["num_samples"] == round((0.6 + 0.65) * 16_000)


def test_punctuation_is_removed_in_training_and_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data", ("“Go!”", "It’s, 'no'", "on-off"))
    data = dataclasses.replace(SMALL_CONFIG.data, remove="“!”’',-")
    data = dataclasses.replace(data, train=manifest, test=manifest)
    config = dataclasses.replace(SMALL_CONFIG, epochs=1, data=data)
    seen: list[list[int]] = []

    def watched(*arguments: Any, **options: Any) -> Iterator[dict[str, np.ndarray]]:
        for batch in pipeline.batches(*arguments, **options):
            seen.extend(row[:count].tolist() for row, count in zip(batch["labels"], batch["num_labels"], strict=True))
            yield batch

    monkeypatch.setattr(splits_lib, "batches", watched)
    train(config, tmp_path / "run")
    texts = ["GO", "IT'S NO", "ON OFF"]
    assert sorted(Alphabet.of(data).decode(labels) for labels in seen if labels) == texts
    lines = read_lines(written_test(tmp_path / "run").with_suffix(".jsonl"))
    assert sorted(line["reference"] for line in lines) == texts
    assert load_config(tmp_path / "run").data.remove == data.remove


def test_damaged_audio_stops_training_where_it_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data", name="train")
    audio = tmp_path / "data/train1.wav"
    audio.write_bytes(audio.read_bytes()[:1000])
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest)
    with pytest.raises(InputError, match=r"Utterance train1: .*train1\.wav"):
        train(dataclasses.replace(SMALL_CONFIG, data=data), tmp_path / "run")


def test_run_whose_utterances_changed_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data", ("GO", "YES", "NO"), name="train")
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest)
    config = dataclasses.replace(SMALL_CONFIG, data=data)
    train(config, tmp_path / "run")
    utterances = read_manifest(manifest)
    write_manifest(manifest, utterances[:2])
    with pytest.raises(InputError, match="run must continue with the utterances it began with, got others"):
        train(config, tmp_path / "run")
    elsewhere = shutil.copytree(tmp_path / "data", tmp_path / "moved") / manifest.name
    write_manifest(elsewhere, [dataclasses.replace(u, audio=tmp_path / "moved" / u.audio.name) for u in utterances])
    train(dataclasses.replace(config, data=dataclasses.replace(data, train=elsewhere)), tmp_path / "run")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("epochs", [1, 2], ids=["finished", "unfinished"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_start_with_other_utterances_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, epochs: int
) -> None:
    without_compiling(monkeypatch)
    if epochs == 2:
        monkeypatch.setattr(train_lib, "epochs_left", lambda *_: range(1))
    one, other = (write_noise_manifest(tmp_path / "data", ("GO", text), name=text) for text in ("YES", "NO"))
    data = dataclasses.replace(SMALL_CONFIG.data, train=one, test=one)
    config = dataclasses.replace(SMALL_CONFIG, epochs=epochs, data=data)
    train(config, tmp_path / "run")
    before = contents(tmp_path / "run")
    place: dict[str, Any] = {split: other}
    changed = dataclasses.replace(config, data=dataclasses.replace(data, **place))
    told = {"train": "the utterances it began with, got others", "test": "the test split it began with, got another"}
    with pytest.raises(InputError, match=f"run must continue with {told[split]}"):
        train(changed, tmp_path / "run")
    with pytest.raises(InputError, match=f"run must continue with {told[split]}"):
        dry_run(changed, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_a_refused_start_in_a_folder_of_something_else_leaves_no_lock(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path / "data")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(InputError, match="--workdir must be empty or hold a run"):
        train(with_manifests(SMALL_CONFIG, manifest), tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_missing_test_recording_is_found_before_training(tmp_path: Path) -> None:
    train_manifest = write_noise_manifest(tmp_path / "data", name="train")
    test_manifest = write_noise_manifest(
        tmp_path / "data", ("GO", "ÉTÉ"), name="test"
    )  # such characters count in a test split
    (tmp_path / "data/test0.wav").unlink()
    data = dataclasses.replace(SMALL_CONFIG.data, train=train_manifest, test=test_manifest)
    with pytest.raises(InputError, match=r"test\.jsonl must hold only usable utterances, got 1 of 2 .*test0\.wav"):
        train(dataclasses.replace(SMALL_CONFIG, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dev_split_can_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    train_set, dev, test = (write_noise_manifest(tmp_path, ("GO", "YES"), name) for name in ("train", "dev", "test"))
    config = dataclasses.replace(SMALL_CONFIG, data=DataConfig(train=train_set, dev=dev, test=test, train_on_dev=True))
    splits = read_splits(config)
    assert [utterance.id for utterance in splits["train"].utterances] == ["train0", "train1", "dev0", "dev1"]
    assert not splits["dev"].utterances
    assert [utterance.id for utterance in splits["test"].utterances] == ["test0", "test1"]

    run = tmp_path / "run"
    train(config, run)
    assert not any("dev_wer" in line for line in (run / "metrics.jsonl").read_text().splitlines())
    assert best_step(run) == max(saved_steps(run))
    # Dev utterances that the model was trained on say nothing about unseen speech, so later commands refuse them.
    lm = tmp_path / "lm.arpa"
    lm.touch()
    capsys.readouterr()
    assert cli.main(["calibrate", str(run)]) == 1
    assert "the run has no dev split, or trained on it" in capsys.readouterr().err
    assert cli.main(["lm", "tune", str(run), "--lm", str(lm)]) == 1
    assert "RUN must have a dev split that it did not train on" in capsys.readouterr().err


def test_dev_split_that_is_trained_on_must_be_another(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path)
    for dev, finding in (
        (None, "must have a dev split, got none"),
        (manifest, "without common ids, got 3, such as all0"),
    ):
        config = dataclasses.replace(SMALL_CONFIG, data=DataConfig(train=manifest, dev=dev, train_on_dev=True))
        with pytest.raises(InputError, match=finding):
            train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_none_in_small_letters_is_no_manifest(tmp_path: Path) -> None:
    data = DataConfig(train=write_noise_manifest(tmp_path), dev=Path("none"))
    with pytest.raises(InputError) as caught:
        read_splits(dataclasses.replace(SMALL_CONFIG, data=data))
    assert str(caught.value) == (
        "data.dev must be a manifest or None, got 'none'. To leave it out, write None with a capital N."
    )


def test_training_manifest_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.train must be set, got None. Give a manifest, or a data.corpus."):
        train(SMALL_CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()

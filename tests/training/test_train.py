"""Runs that learn, stop, go on and leave what they should."""

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.config import AugmentConfig, CheckpointConfig, Config, DataConfig, ModelConfig, OptimConfig
from ds2_jax.corpora import an4
from ds2_jax.data import pipeline
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.parallel.mesh import data_mesh, replicate
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.fitted import read_calibration
from ds2_jax.runs.run_folder import best_step, load_config, saved_steps
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import splits as splits_lib
from ds2_jax.training import train as train_lib
from ds2_jax.training.replay.batch_file import read_batch
from ds2_jax.training.splits import read_splits
from ds2_jax.training.train import stops_early, train
from tests.small_runs import SMALL_CONFIG, noise, some_state, with_manifests, write_noise_manifest

COMPILED = "/jax/core/compile/backend_compile_duration"
EPOCHS = 3


@contextmanager
def each_program(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells the name of every program that is compiled or loaded from the cache meanwhile."""

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            tell(str(kwargs["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run, and the programs that were compiled until the end of its first epoch and after it."""

    config: Config
    run: Path
    compiled_first: list[str]
    compiled_later: list[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    config = dataclasses.replace(
        with_manifests(SMALL_CONFIG, write_noise_manifest(folder)),
        epochs=EPOCHS,
        augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10),
        model=dataclasses.replace(SMALL_CONFIG.model, dropout=0.2),
        optim=OptimConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=2, ema_decay=0.9),
        checkpoint=CheckpointConfig(average=2),
    )
    run = folder / "run"
    first: list[str] = []
    later: list[str] = []

    def tell(name: str) -> None:
        log = run / "metrics.jsonl"
        over = log.exists() and "dev_wer" in log.read_text()
        (later if over else first).append(name)

    with each_program(tell):
        train(config, run)
    return Trained(config, run, first, later)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.endswith(("per_hour", "seconds"))}


def final_state(run: Path, config: Config) -> Any:
    like = replicate(some_state(config), data_mesh())
    with Checkpoints(run, config) as checkpoints:
        step = checkpoints.latest_step
        assert step is not None
        return jax.device_get(checkpoints.restore(step, like))


def without_compiling(monkeypatch: pytest.MonkeyPatch, loss: float = 1.0) -> None:
    """Puts a step that learns nothing in the place of the real one."""

    def parallel_train_step(*_: Any) -> Callable[..., Any]:
        def step(state: Any, batch: dict[str, np.ndarray], _: Any, signal: int) -> Any:
            samples = batch["num_samples"].sum()
            alignable = (batch["num_samples"] > 0).sum()
            counts = {
                "num_samples": samples,
                "alignable": alignable,
                "unalignable": 0,
                "empty": (batch["num_samples"] == 0).sum(),
            }
            metrics = {"loss": loss, "grad_norm": 1.0, **counts}
            new: dict[str, Any] = {"step": state.step + 1} if np.isfinite(loss) else {"stopped": True}
            return dataclasses.replace(state, **new), metrics, signal

        return step

    monkeypatch.setattr(train_lib, "parallel_train_step", parallel_train_step)


def test_best_checkpoint_is_calibrated_on_the_dev_split(trained: Trained) -> None:
    calibration = read_calibration(trained.run)  # of another checkpoint it would be taken for none
    assert calibration.step == best_step(trained.run)
    assert calibration.fitted_on == "dev"


def test_run_without_a_dev_split_is_not_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path))
    assert train(dataclasses.replace(SMALL_CONFIG, data=data, epochs=1), tmp_path / "run") is None
    assert not (tmp_path / "run/calibration.json").exists()
    told = "calibration: no dev split, so confidences and word times stay as the model gives them\n"
    assert told in capsys.readouterr().err


def test_nothing_compiles_after_the_first_epoch(trained: Trained) -> None:
    assert {"jit(train_step)", "jit(eval_step)"} <= set(trained.compiled_first)
    # Orbax shares large arrays out among the devices that hold copies: its first save, after the epoch, slices them.
    # Averaging checkpoints comes after the last epoch.
    assert set(trained.compiled_later) <= {"jit(slice)", "jit(incremental_update)"}


def test_no_more_shapes_are_compiled_than_were_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(tmp_path, ("GO",) * 24)  # 0.5 to 1.65 s
    model = dataclasses.replace(SMALL_CONFIG.model, rnn_type="rnn", num_layers=1)  # compiles sooner
    config = dataclasses.replace(with_manifests(SMALL_CONFIG, manifest), epochs=2, seed=1, model=model)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, num_buckets=2))
    programs: list[str] = []
    with each_program(programs.append):
        train(config, tmp_path / "run")
    told = re.search(r"batches of utterances padded to ([^;]+);", capsys.readouterr().err)
    assert told
    assert programs.count("jit(train_step)") == len(told[1].split(", ")) == 2


def test_metrics_are_logged_for_each_step_and_epoch(trained: Trained) -> None:
    lines = read_lines(trained.run / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [(line["step"], line["epoch"]) for line in steps] == [(1, 1), (2, 2), (3, 3)]
    for line in steps:
        assert line["alignable"] == 3
        assert line["empty"] == 5
        assert line["unalignable"] == 0
        assert line["num_samples"] == round(1.65 * 16_000)
        assert line["loss"] > 0
        assert line["grad_norm"] > 0
    epochs = [line for line in lines if "dev_wer" in line]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert all({"dev_loss", "dev_cer", "dev_cer_with_spaces"} <= line.keys() for line in epochs)
    for line in epochs:  # 3 utterances of 0.5, 0.55 and 0.6 s in 8 rows of 61 frames
        padded = 61 * 160 - 1
        assert line["empty_share"] == 5 / 8
        assert line["padding_share"] == pytest.approx(3 / 8 - 1.65 * 16_000 / (8 * padded))
        assert 0 < line["data_wait_seconds"] < line["epoch_seconds"]
    assert {"test_loss", "test_wer", "test_cer", "test_cer_with_spaces"} <= lines[-1].keys()
    times = [line["wall_seconds"] for line in lines]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 600
    assert [path.stat().st_size > 0 for path in (trained.run / "tensorboard").iterdir()] == [True]


def test_run_folder_holds_settings_and_test_results(trained: Trained) -> None:
    assert load_config(trained.run).model == trained.config.model
    summary = json.loads((trained.run / "test.json").read_text())
    assert summary["utterances"] == 3
    assert summary["wer_counts"]["reference_length"] == 3
    lines = read_lines(trained.run / "test.jsonl")
    assert sorted(line["reference"] for line in lines) == ["GO", "NO", "YES"]


def test_interrupted_run_ends_as_the_uninterrupted_one(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, save = tmp_path / "run", Checkpoints.save

    def stop_before_second(self: Checkpoints, state: Any) -> None:
        if int(state.step) == 2:
            raise KeyboardInterrupt
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", stop_before_second)
    with pytest.raises(KeyboardInterrupt):
        train(trained.config, run)
    monkeypatch.undo()
    train(trained.config, run)
    assert f"{run}: continuing after step 1" in capsys.readouterr().err
    jax.tree.map(
        np.testing.assert_array_equal, final_state(run, trained.config), final_state(trained.run, trained.config)
    )
    assert int(final_state(run, trained.config).step) == EPOCHS
    expected, actual = (
        [without_times(line) for line in read_lines(folder / "metrics.jsonl")] for folder in (trained.run, run)
    )
    assert actual == expected


def test_finished_run_tells_what_it_found(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in trained.run.rglob("*") if path.is_file()}
    monkeypatch.setattr(train_lib, "fit", None)
    evaluation = train(trained.config, trained.run)
    assert evaluation is not None
    assert evaluation.summary == json.loads((trained.run / "test.json").read_text())
    assert {path: path.read_bytes() for path in trained.run.rglob("*") if path.is_file()} == before
    output = capsys.readouterr()
    assert f"{trained.run}: finished: 3 of 3 epochs\n" in output.err
    assert re.match(r"test, with the mean over the moving average of the weights of epochs \d, \d: ", output.out)
    assert str(evaluation) in output.out


def test_results_are_those_of_the_averaged_weights(trained: Trained) -> None:
    like = replicate(some_state(trained.config), data_mesh())
    with Checkpoints(trained.run, trained.config) as checkpoints:
        best = checkpoints.best_steps
        states = [jax.device_get(checkpoints.restore(step, like)) for step in best]
    assert len(best) == 2
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(state.average for state in states))
    split = read_splits(trained.config)["test"]
    mesh = data_mesh()
    model = TrainedModel(trained.config, replicate(mean, mesh), mesh, trained.run)
    test = evaluate_split(model, split, model.decoder(), title="test")
    assert test.loss == pytest.approx(json.loads((trained.run / "test.json").read_text())["loss"], rel=1e-5)


def test_finished_run_without_test_results_is_evaluated(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained.run, tmp_path / "run")
    (run / "test.json").unlink()
    train(trained.config, run)
    assert (run / "test.json").read_text() == (trained.run / "test.json").read_text()
    assert len(list((run / "tensorboard").iterdir())) == 2  # the second holds the test's error rates


def test_without_dev_the_last_epoch_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path / "data"))
    config = dataclasses.replace(SMALL_CONFIG, data=data)
    assert train(config, tmp_path / "run") is None
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.best_step == checkpoints.latest_step == config.epochs
    assert not (tmp_path / "run/test.json").exists()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_names_step_and_utterances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    without_compiling(monkeypatch, loss)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path / "data"))
    with pytest.raises(InputError, match=f"The loss must be finite, got {loss} .* at step 1, epoch 1") as caught:
        train(dataclasses.replace(SMALL_CONFIG, data=data), tmp_path / "run")
    assert set(re.findall(r"\ball\d\b", str(caught.value))) == {"all0", "all1", "all2"}
    assert "start anew" in str(caught.value)
    assert saved_steps(tmp_path / "run") == [0]  # the state before it
    assert str(tmp_path / "data/all0.wav") in read_batch(tmp_path / "run/replay/step-1.npz").audio


@pytest.mark.slow
def test_step_that_is_not_finite_can_be_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data"))
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, batch_size=1), optim=OptimConfig(learning_rate=1e25)
    )
    for _ in range(2):  # the same command meets it again
        with pytest.raises(
            InputError, match=r"The loss must be finite, got .* at step 2, epoch 1, utterances all"
        ) as stop:
            train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [1]
    told = re.search(r"python main.py replay (\S+step-2.npz) says what is behind it", str(stop.value))
    assert told is not None
    assert cli.main(["replay", told[1]]) == 1
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize("with_dev", [True, False])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, with_dev: bool) -> None:
    manifest = write_noise_manifest(tmp_path / "data")  # one step: its own loss is that of the first weights
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest, dev=manifest if with_dev else None)
    config = dataclasses.replace(SMALL_CONFIG, epochs=1, data=data, optim=OptimConfig(learning_rate=1e30))
    with pytest.raises(
        InputError, match=r"The norm of the weights must be finite, got (inf|nan) after epoch 1\. Start"
    ):
        train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == []


def test_dev_loss_that_is_not_finite_is_told_and_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    utterance = Utterance(Path("a.wav"), 1.0, "", "a")
    dev = [Evaluation([Result(utterance, "A", "A")], loss, 0) for loss in (1.0, float("nan"), float("nan"))]
    monkeypatch.setattr(train_lib, "evaluate_split", lambda *_, **__: dev.pop(0))
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data"))
    for _ in range(2):  # the second start evaluates again
        with pytest.raises(InputError, match=r"The dev loss must be finite, got nan after epoch 2\. Start anew"):
            train(config, tmp_path / "run")
    assert best_step(tmp_path / "run") == 1
    assert dev == []


def test_epoch_in_which_nothing_can_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data")
    for path in (tmp_path / "data").glob("*.wav"):
        path.write_bytes(path.read_bytes()[:200])
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest, on_bad_utterance="skip")
    with pytest.raises(InputError, match=r"data\.train must hold utterances that can be .* got none in epoch 1\. "):
        train(dataclasses.replace(SMALL_CONFIG, data=data), tmp_path / "run")


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
    samples[100] = np.nan  # found only where the audio is decoded
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
    lines = read_lines(tmp_path / "run/test.jsonl")
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


def evaluates_at(monkeypatch: pytest.MonkeyPatch, rates: Callable[[int], int]) -> None:
    """Puts an evaluation in the place of the real one: `rates` of 100 words are wrong the n-th time."""
    calls = itertools.count(1)

    def evaluate(*_: Any, **__: Any) -> Evaluation:
        utterance = Utterance(Path("a.wav"), 1.0, "", "a")
        wrong = rates(next(calls))
        return Evaluation([Result(utterance, "A " * 100, "A " * (100 - wrong))], 1.0, 0)

    monkeypatch.setattr(train_lib, "evaluate_split", evaluate)


@pytest.mark.parametrize(
    ("wrong", "best"),
    [
        ([5, 5, 5, 5, 5, 5], 1),  # equals are no progress
        ([9, 8, 7, 7, 7, 1], 3),
        ([9, 8, 8, 7, 7, 7], 4),
    ],
)
def test_training_stops_after_epochs_without_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[int], best: int
) -> None:
    without_compiling(monkeypatch)
    evaluates_at(monkeypatch, lambda call: wrong[call - 1])
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data"))
    config = dataclasses.replace(config, epochs=6, patience=2, data=dataclasses.replace(config.data, test=None))
    train(config, tmp_path / "run")
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.best_step == best
        assert checkpoints.latest_step == min(best + 2, 6)


def test_run_whose_utterances_changed_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    manifest = write_noise_manifest(tmp_path / "data", ("GO", "YES", "NO"), name="train")
    data = dataclasses.replace(SMALL_CONFIG.data, train=manifest)
    config = dataclasses.replace(SMALL_CONFIG, data=data)
    train(config, tmp_path / "run")
    utterances = read_manifest(manifest)
    write_manifest(manifest, utterances[:2])
    with pytest.raises(InputError, match="run must go on with the utterances it began with, got others"):
        train(config, tmp_path / "run")
    elsewhere = shutil.copytree(tmp_path / "data", tmp_path / "moved") / manifest.name
    write_manifest(elsewhere, [dataclasses.replace(u, audio=tmp_path / "moved" / u.audio.name) for u in utterances])
    train(dataclasses.replace(config, data=dataclasses.replace(data, train=elsewhere)), tmp_path / "run")


def test_unreadable_dev_recording_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)

    def fail(*_: Any, **__: Any) -> Evaluation:
        raise InputError("dev1.wav must hold finite samples")

    monkeypatch.setattr(train_lib, "evaluate_split", fail)
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data"))
    with pytest.raises(InputError, match=r"dev1\.wav must hold finite samples"):
        train(config, tmp_path / "run")
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.latest_step == 1


def test_missing_test_recording_is_found_before_training(tmp_path: Path) -> None:
    train_manifest = write_noise_manifest(tmp_path / "data", name="train")
    test_manifest = write_noise_manifest(tmp_path / "data", ("GO", "ÉTÉ"), name="test")  # such text counts in tests
    (tmp_path / "data/test0.wav").unlink()
    data = dataclasses.replace(SMALL_CONFIG.data, train=train_manifest, test=test_manifest)
    with pytest.raises(InputError, match=r"test\.jsonl must hold only usable utterances, got 1 of 2 .*test0\.wav"):
        train(dataclasses.replace(SMALL_CONFIG, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folder_that_another_process_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_lib, "SECONDS_TO_SHOW", 0)
    monkeypatch.setattr("ds2_jax.training.train.broadcast_from_primary", lambda name, value: [1, 2])  # of the first
    with pytest.raises(InputError) as caught, train_lib.opened(tmp_path / "run", SMALL_CONFIG, False, {}):
        pass
    assert str(caught.value) == (
        f"--workdir must be one folder that all processes see, got {tmp_path / 'run'}, which is another in process 0. "
        "Give a folder of a file system that all hosts share."
    )


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
    # What was trained on dev says nothing about unseen speech, and the later commands know it.
    lm = tmp_path / "lm.arpa"
    lm.touch()
    capsys.readouterr()
    assert cli.main(["calibrate", str(run)]) == 1
    assert "the run has no dev split, or trained on it" in capsys.readouterr().err
    assert cli.main(["lm", "tune", str(run), "--lm", str(lm)]) == 1
    assert "RUN must have a dev split that it did not train on" in capsys.readouterr().err


def test_dev_split_that_is_trained_on_must_be_another(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path)
    for dev, finding in ((None, "needs a dev split, got none"), (manifest, "without a common id, got 3, such as all0")):
        config = dataclasses.replace(SMALL_CONFIG, data=DataConfig(train=manifest, dev=dev, train_on_dev=True))
        with pytest.raises(InputError, match=finding):
            train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_manifest_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.train must be set, got None. Give a manifest, or a data.corpus."):
        train(SMALL_CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


WORDS = ("GO", "HELP", "NO", "STOP", "YES")
"""Short utterances of AN4; each is heard often in an epoch, since an epoch ends with a checkpoint."""
COPIES = 16


def write_an4_words(root: Path, archive: Path) -> tuple[Path, Path]:
    """Manifests of five utterances: for training, in many copies; and for evaluation, once."""
    utterances = sorted(read_manifest(an4.prepare(root, archive) / "train.jsonl"), key=lambda u: u.duration)
    chosen = [next(u for u in utterances if u.transcript == word) for word in WORDS]
    write_manifest(root / "once.jsonl", chosen)
    copies: list[Utterance] = [dataclasses.replace(u, id=f"{u.id}-{copy}") for copy in range(COPIES) for u in chosen]
    write_manifest(root / "often.jsonl", copies)
    return root / "often.jsonl", root / "once.jsonl"


def test_real_speech_is_learned_evaluated_and_transcribed(
    an4_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    often, once = write_an4_words(tmp_path, an4_archive)
    config = Config(
        epochs=12,
        data=DataConfig(train=often, test=once, batch_size=8, num_buckets=1),
        model=ModelConfig(hidden_size=64, num_layers=1, channels=(4, 4), frequency_strides=(4, 2), time_reduction=4),
        optim=OptimConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=10),
    )
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/test.json").read_text())["wer"] == 0

    run = (tmp_path / "run").rename(tmp_path / "moved")
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--manifest", str(once)]) == 0
    assert "WER 0.00%" in capsys.readouterr().out
    results = read_lines(run / f"evaluations/{tmp_path.name}-once.jsonl")
    assert sorted(line["hypothesis"] for line in results) == list(WORDS)

    utterances = read_manifest(once)
    assert cli.main(["transcribe", str(run), *(str(u.audio) for u in utterances), "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == list(WORDS)
    for line in lines:
        times = [time for word in line["words"] for time in (word["start"], word["end"])]
        assert [word["word"] for word in line["words"]] == line["text"].split()
        assert times[0] >= 0
        assert times == sorted(times)
        assert times[-1] <= line["duration"]


@pytest.mark.parametrize(
    ("patience", "best_step", "epoch", "stops"),
    [
        (0, 10, 99, False),  # never
        (3, None, 0, False),  # nothing saved yet
        (3, 10, 3, False),  # the best was epoch 1 of 10 steps; epochs 2 and 3 were worse
        (3, 10, 4, True),
    ],
)
def test_patience_counts_epochs_without_a_better_one(
    patience: int, best_step: int | None, epoch: int, stops: bool
) -> None:
    assert stops_early(patience, best_step, 10, epoch) is stops

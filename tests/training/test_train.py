"""Training learns, stops, continues, and leaves the files that it should."""

import dataclasses
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import AugmentConfig, CheckpointConfig, Config, DataConfig, ModelConfig, OptimConfig, to_json
from ds2_jax.corpora import an4
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.evaluation.results import Evaluation
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.model import update
from ds2_jax.model.optimizer import learning_rate_schedule, make_optimizer
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.fitted import read_calibration
from ds2_jax.runs.run_folder import best_step, load_config
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import train as train_lib
from ds2_jax.training.splits import read_splits
from ds2_jax.training.train import train
from tests.small_runs import SMALL_CONFIG, some_state, with_manifests, write_noise_manifest
from tests.training.stand_ins import read_lines, without_compiling, without_time_of_writing, written_test

COMPILED = "/jax/core/compile/backend_compile_duration"
EPOCHS = 3
ROOT = Path(__file__).parents[2]


@contextmanager
def each_program(tell: Callable[[str], None]) -> Iterator[None]:
    """Calls `tell` with the name of every program that is compiled or loaded from the cache meanwhile."""

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
    """A finished run, with the programs that were compiled before and after the end of its first epoch."""

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


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.endswith(("per_hour", "seconds"))}


def final_state(run: Path, config: Config) -> Any:
    like = replicate(some_state(config), data_mesh())
    with Checkpoints(run, config) as checkpoints:
        step = checkpoints.latest_step
        assert step is not None
        return jax.device_get(checkpoints.restore(step, like))


def test_best_checkpoint_is_calibrated_on_the_dev_split(trained: Trained) -> None:
    calibration = read_calibration(trained.run)  # a calibration of another checkpoint would be ignored
    assert calibration.step == best_step(trained.run)
    assert calibration.fitted_on == "dev"


def test_run_without_a_dev_split_is_not_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path))
    assert train(dataclasses.replace(SMALL_CONFIG, data=data, epochs=1), tmp_path / "run") is None
    assert not (tmp_path / "run/calibration.json").exists()
    told = "calibration: no dev split, so confidences and word times stay uncalibrated\n"
    assert told in capsys.readouterr().err


def test_nothing_compiles_after_the_first_epoch(trained: Trained) -> None:
    assert {"jit(train_step)", "jit(eval_step)"} <= set(trained.compiled_first)
    # Orbax divides large arrays among the devices that hold copies, so its first save, after the epoch, slices them.
    # Checkpoints are averaged after the last epoch.
    assert set(trained.compiled_later) <= {"jit(slice)", "jit(incremental_update)"}


def lowered_step(config: Config) -> str:
    """Returns the program of a run's training step, as text."""
    tx = make_optimizer(config, 3, 3 * config.epochs)
    num_labels = Alphabet.of(config.data).size
    step = functools.partial(update.train_step, config=config, num_labels=num_labels, tx=tx)
    counts = np.full(8, 4000, np.int32)
    batch = {"waveforms": np.zeros((8, 4000), np.float32), "num_samples": counts, "indices": counts}
    batch |= {"labels": np.ones((8, 3), np.int32), "num_labels": np.full(8, 3, np.int32)}
    given = update.step_arguments(config, 3)(1)
    return parallel_train_step(step, data_mesh()).lower(some_state(config), batch, jnp.int32(0), given).as_text()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_seed_and_schedule_are_no_part_of_the_compiled_step(optimizer: Literal["adamw", "sgd"]) -> None:
    augment = AugmentConfig(num_time_masks=1, time_mask_width=10)
    optim = OptimConfig(optimizer=optimizer, learning_rate=1e-3, schedule="cosine", warmup_steps=2)
    config = dataclasses.replace(SMALL_CONFIG, augment=augment, optim=optim)
    other_optim = dataclasses.replace(optim, learning_rate=2e-3, schedule="exponential", anneal=0.9, warmup_steps=5)
    other = dataclasses.replace(config, seed=9, epochs=7, optim=other_optim)
    assert lowered_step(other) == lowered_step(config)
    for each in (config, other):
        schedule = learning_rate_schedule(each.optim, 3, 3 * each.epochs)
        given = update.step_arguments(each, 3)
        assert [given(step) for step in (0, 4)] == [
            {"seed": each.seed, "learning_rate": schedule(jnp.int32(step))} for step in (0, 4)
        ]


def test_no_more_shapes_are_compiled_than_were_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count_rows(state: Any, batch: dict[str, jax.Array], _: jax.Array, *, axis_name: str, **__: Any) -> Any:
        """A step that compiles at once."""
        rows = jax.lax.psum((batch["num_samples"] > 0).sum(), axis_name)
        metrics = {"loss": 1.0, "grad_norm": 1.0, "num_samples": rows, "alignable": rows, "unalignable": 0, "empty": 0}
        return dataclasses.replace(state, step=state.step + 1), jax.tree.map(jnp.asarray, metrics)

    monkeypatch.setattr(update, "train_step", count_rows)
    config = with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path, ("GO",) * 24))  # 0.5 to 1.65 s
    data = dataclasses.replace(config.data, num_buckets=2, dev=None, test=None)
    programs: list[str] = []
    with each_program(programs.append):
        train(dataclasses.replace(config, data=data, epochs=2), tmp_path / "run")
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
    schedule = learning_rate_schedule(trained.config.optim, 1, EPOCHS)
    assert [line["learning_rate"] for line in steps] == [float(schedule(step)) for step in range(EPOCHS)]
    epochs = [line for line in lines if "dev_wer" in line]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert all({"dev_loss", "dev_cer", "dev_cer_with_spaces"} <= line.keys() for line in epochs)
    for line, step in zip(epochs, steps, strict=True):  # an epoch has one step
        assert (line["train_loss"], line["learning_rate"]) == (step["loss"], step["learning_rate"])
    documented = (ROOT / "docs/training.md").read_text()
    assert {name for line in lines for name in line if f"`{name}`" not in documented} == set()
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
    summary = json.loads(written_test(trained.run).read_text())
    assert summary["utterances"] == 3
    assert summary["wer_counts"]["reference_length"] == 3
    assert summary["provenance"]["manifest"] == str(trained.config.data.test)
    assert len(summary["provenance"]["steps"]) == 2
    lines = read_lines(written_test(trained.run).with_suffix(".jsonl"))
    assert sorted(line["reference"] for line in lines) == ["GO", "NO", "YES"]


KILLED_WHILE_SAVING = """
import os, pathlib, signal, sys
from ds2_jax.config import from_json
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.training.train import train

save = Checkpoints.save

def killed(self, state):
    save(self, state)  # a thread goes on writing
    if int(state.step) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = killed
train(from_json(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


def test_killed_run_ends_as_the_one_that_is_not(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills at other moments are in test_survival.py."""
    run = tmp_path / "run"
    words = [sys.executable, "-c", KILLED_WHILE_SAVING, to_json(trained.config), str(run)]
    assert subprocess.run(words, cwd=ROOT).returncode == -signal.SIGKILL
    train(trained.config, run)
    assert re.search(rf"{run}: continuing after step [12]\n", capsys.readouterr().err)
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
    assert evaluation.summary == json.loads(written_test(trained.run).read_text())
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
    assert test.loss == pytest.approx(json.loads(written_test(trained.run).read_text())["loss"], rel=1e-5)


def test_finished_run_without_test_results_is_evaluated(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained.run, tmp_path / "run")
    written_test(run).unlink()
    train(trained.config, run)
    assert without_time_of_writing(run) == without_time_of_writing(trained.run)
    assert len(list((run / "tensorboard").iterdir())) == 2  # the second holds the test's error rates


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


def test_folder_that_another_process_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_lib, "SECONDS_TO_SHOW", 0)
    monkeypatch.setattr(
        "ds2_jax.training.train.broadcast_from_primary", lambda name, value: [1, 2]
    )  # the first process's
    with pytest.raises(InputError) as caught, train_lib.opened(tmp_path / "run", SMALL_CONFIG, False, {}):
        pass
    assert str(caught.value) == (
        f"--workdir must be the same folder for all processes, got {tmp_path / 'run'}, which is different in process "
        "0. Give a folder in a file system that all hosts share."
    )


WORDS = ("GO", "HELP", "NO", "STOP", "YES")
"""Short utterances of AN4. Each occurs often in an epoch, because every epoch ends with a checkpoint."""
COPIES = 16


def write_an4_words(root: Path, archive: Path) -> tuple[Path, Path]:
    """Writes two manifests of five utterances: many copies for training, one copy for evaluation."""
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
        epochs=8,
        data=DataConfig(train=often, test=once, batch_size=8, num_buckets=1),
        model=ModelConfig(hidden_size=64, num_layers=1, channels=(4, 4), frequency_strides=(4, 2), time_reduction=4),
        optim=OptimConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=10),
    )
    train(config, tmp_path / "run")
    assert json.loads(written_test(tmp_path / "run").read_text())["wer"] == 0

    run = (tmp_path / "run").rename(tmp_path / "moved")
    capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--manifest", str(once)]) == 0
    assert "WER 0.00%" in capsys.readouterr().out
    results = read_lines(written_test(run).with_suffix(".jsonl"))  # the same evaluation has the same name
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

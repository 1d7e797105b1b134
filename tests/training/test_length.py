"""Training ends after all epochs, or earlier without progress, and goes on if it gets more."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ds2_jax.config import Config, OptimConfig
from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.run_folder import load_config, open_run, saved_steps
from ds2_jax.system.errors import InputError
from ds2_jax.training import train as train_lib
from ds2_jax.training.remaining import describe_more_epochs, stops_early
from ds2_jax.training.train import train
from tests.small_runs import SMALL_CONFIG, with_manifests, write_noise_manifest
from tests.training.stand_ins import without_compiling, written_test


def test_without_dev_the_last_epoch_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiling(monkeypatch)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path / "data"))
    config = dataclasses.replace(SMALL_CONFIG, data=data)
    assert train(config, tmp_path / "run") is None
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.best_step == checkpoints.latest_step == config.epochs
    assert not (tmp_path / "run/evaluations").exists()


def evaluates_at(monkeypatch: pytest.MonkeyPatch, rates: Callable[[int], int]) -> None:
    """Replaces the evaluation by one in which `rates(n)` of 100 words are wrong at the n-th call."""
    calls = itertools.count(1)

    def evaluate(*_: Any, **__: Any) -> Evaluation:
        utterance = Utterance(Path("a.wav"), 1.0, "", "a")
        wrong = rates(next(calls))
        return Evaluation([Result(utterance, "A " * 100, "A " * (100 - wrong))], 1.0, 0)

    monkeypatch.setattr(train_lib, "evaluate_split", evaluate)


@pytest.mark.parametrize(
    ("wrong", "best"),
    [
        ([5, 5, 5, 5, 5, 5], 1),  # an equal rate is no progress
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


def test_a_finished_run_goes_on_with_more_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_compiling(monkeypatch)
    run = tmp_path / "run"
    config = dataclasses.replace(with_manifests(SMALL_CONFIG, write_noise_manifest(tmp_path / "data")), epochs=2)
    train(config, run)
    first = written_test(run)
    with pytest.raises(InputError, match="epochs: 2 in the run, 1 now"):
        train(dataclasses.replace(config, epochs=1), run)
    capsys.readouterr()
    train(dataclasses.replace(config, epochs=4, patience=9), run)
    told = capsys.readouterr().err
    assert (
        f"{run}: 4 epochs instead of 2; the constant schedule of the learning rate goes on as it was: 0.01 at the next "
        "step, 3, and 0.01 at the last, 4\n"
    ) in told
    assert f"{run}: continuing after step 2\n" in told
    assert load_config(run).epochs == 4
    assert saved_steps(run)[-1] == 4
    assert first.exists()
    capsys.readouterr()
    train(dataclasses.replace(config, epochs=4, patience=9), run)
    assert f"{run}: finished: 4 of 4 epochs\n" in capsys.readouterr().err


def test_the_schedule_of_more_epochs_is_told(tmp_path: Path) -> None:
    optim = OptimConfig(learning_rate=1.0, schedule="cosine")
    open_run(tmp_path, Config(epochs=2, optim=optim), overwrite=False)
    assert describe_more_epochs(tmp_path, Config(epochs=4, optim=optim), num_steps=50) == ""  # nothing is trained yet
    (tmp_path / "checkpoints/100").mkdir(parents=True)
    assert describe_more_epochs(tmp_path, Config(epochs=2, optim=optim), num_steps=50) == ""
    assert describe_more_epochs(tmp_path, Config(epochs=4, optim=optim), num_steps=50) == (
        f"{tmp_path}: 4 epochs instead of 2; the cosine schedule of the learning rate is now that of 4 epochs, where "
        "that of 2 had come to 0.000247: 0.5 at the next step, 101, and 6.17e-05 at the last, 200"
    )


def test_other_schedules_go_on_as_they_were(tmp_path: Path) -> None:
    optim = OptimConfig(learning_rate=1.0, schedule="exponential", anneal=0.5)
    open_run(tmp_path, Config(epochs=2, optim=optim), overwrite=False)
    (tmp_path / "checkpoints/100").mkdir(parents=True)
    assert describe_more_epochs(tmp_path, Config(epochs=4, optim=optim), num_steps=50) == (
        f"{tmp_path}: 4 epochs instead of 2; the exponential schedule of the learning rate goes on as it was: 0.25 at "
        "the next step, 101, and 0.125 at the last, 200"
    )


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

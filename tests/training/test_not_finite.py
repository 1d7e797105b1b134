"""Training stops when a loss or a weight is not finite, or when it has learned nothing."""

import dataclasses
import re
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.config import OptimConfig
from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.runs.run_folder import best_step, saved_steps
from ds2_jax.system.errors import InputError
from ds2_jax.training import train as train_lib
from ds2_jax.training.replay.batch_file import read_batch
from ds2_jax.training.train import train
from tests.small_runs import SMALL_CONFIG, with_manifests, write_noise_manifest
from tests.training.stand_ins import without_compiling


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_names_step_and_utterances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    without_compiling(monkeypatch, loss)
    data = dataclasses.replace(SMALL_CONFIG.data, train=write_noise_manifest(tmp_path / "data"))
    with pytest.raises(
        InputError, match=f"loss and its gradient must be finite, got a loss of {loss} .* at step 1, epoch 1"
    ) as caught:
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
    for _ in range(2):  # the same command fails at the same step
        with pytest.raises(
            InputError, match=r"The loss and its gradient must be finite, got .* at step 2, epoch 1, utterances all"
        ) as stop:
            train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [1]
    told = re.search(r"python main.py replay (\S+step-2.npz) shows the cause", str(stop.value))
    assert told is not None
    assert cli.main(["replay", told[1]]) == 1
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize("with_dev", [True, False])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, with_dev: bool) -> None:
    manifest = write_noise_manifest(tmp_path / "data")  # one step, whose loss is still that of the first weights
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

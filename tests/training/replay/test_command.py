"""A failed step is repeated bit for bit, and the cause is named."""

import dataclasses
import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, step_arguments, train_step
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.replay.batch_file import FailedStep, write_batch
from ds2_jax.training.replay.command import for_one_device, make_again, restore
from tests.small_runs import SMALL_CONFIG, noise, some_state

CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    model=dataclasses.replace(SMALL_CONFIG.model, rnn_type="rnn"),  # compiles sooner than an LSTM
)
NUM_LABELS = Alphabet(CONFIG.data.alphabet).size
STEP = 5
CLICK = np.float32(1.75e36)
"""With these weights a click overflows in the first convolution, and noise does not."""
Change = Callable[[TrainState], Any]


def make_failed(**changes: Any) -> FailedStep:
    num_samples = np.array([8000, 6000, 8000, 0], np.int32)
    waveforms = np.stack([noise(0.5, seed) for seed in range(4)]) * (np.arange(8000) < num_samples[:, None])
    waveforms[2] = np.arange(8000) == 4000
    batch = {
        "waveforms": waveforms,
        "num_samples": num_samples,
        "labels": np.array([[3, 3, 4], [5, 6, 0], [7, 0, 0], [0, 0, 0]], np.int32),
        "num_labels": np.array([3, 2, 1, 0], np.int32),
        "indices": np.array([10, 11, 12, -1], np.int32),
    }
    failed = FailedStep(
        step=STEP,
        epoch=1,
        loss=float("nan"),
        grad_norm=float("nan"),
        steps_per_epoch=3,
        num_devices=1,
        num_processes=1,
        process_index=0,
        made_on="1 x cpu, jax 0.10.1",
        ids=["first", "second", "click", ""],
        audio=["/data/first.wav", "/data/second.wav", "/data/cl\x1bck.wav", ""],
        batch=batch,
    )
    return dataclasses.replace(failed, **changes)


def write_run(folder: Path, change: Change = lambda state: None, step: int = STEP - 1) -> Path:
    """Writes a run whose only checkpoint is that of `step`."""
    state = dataclasses.replace(some_state(CONFIG), step=jnp.int32(step))
    change(state)
    run_folder.open_run(folder, CONFIG, overwrite=False)
    with Checkpoints(folder, CONFIG) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
    return folder


def scale_first_convolution(state: TrainState) -> None:
    state.params["conv_0"]["kernel"] *= CLICK


def plant_infinity(state: TrainState) -> None:
    state.params["rnn_1"]["hidden_kernel"][0][3, 4] = np.inf


def replayed(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Returns the exit code and standard output of the command."""
    code = cli.main(["replay", str(path), *words])
    output = capsys.readouterr()
    assert "error" not in output.err
    return code, output.out


def train_directly(failed: FailedStep) -> tuple[float, float]:
    """Computes loss and gradient norm with the step of the training loop."""
    mesh = data_mesh(jax.devices()[:1])
    tx = make_optimizer(CONFIG, failed.steps_per_epoch, failed.steps_per_epoch * CONFIG.epochs)
    step = functools.partial(train_step, config=CONFIG, num_labels=NUM_LABELS, tx=tx)
    state = replicate(dataclasses.replace(some_state(CONFIG), step=jnp.int32(STEP - 1)), mesh)
    given = step_arguments(CONFIG, failed.steps_per_epoch)(failed.step - 1)
    _, metrics, _ = parallel_train_step(step, mesh)(state, failed.batch, jnp.int32(failed.epoch), given=given)
    return float(metrics["loss"]), float(metrics["grad_norm"])


def test_step_is_made_again_bit_for_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss, grad_norm = train_directly(make_failed())
    path = write_batch(write_run(tmp_path / "run"), make_failed(loss=loss, grad_norm=grad_norm))
    code, printed = replayed(path, capsys)
    assert code == 0
    lines = printed.splitlines()
    assert lines[:4] == [
        "step 5 (epoch 2): 3 utterances, on 1 x cpu",
        f"then: loss {loss}, gradient norm {grad_norm}, on 1 x cpu, jax 0.10.1",
        f"now:  loss {loss}, gradient norm {grad_norm}, the same bits",
        "the state before it (step 4): finite",
    ]
    assert lines[-1].startswith("The loss and the gradient are finite here: the failure does not reproduce")
    shutil.move(path, tmp_path / "elsewhere.npz")
    assert replayed(tmp_path / "elsewhere.npz", capsys, "--run", str(tmp_path / "run")) == (0, printed)


def test_utterance_and_layer_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_batch(write_run(tmp_path, scale_first_convolution), make_failed())
    code, printed = replayed(path, capsys)
    assert code == 1
    assert re.search(r"^now:  loss nan, gradient norm nan, the same bits$", printed, re.MULTILINE)
    assert re.search(
        r"^      0\.38    0\.4999         0       2      10        nan  second, /data/second\.wav$", printed, re.M
    )
    assert re.search(r"^  conv_0 +[\d.e+]+ +1,066 in click$", printed, re.MULTILINE)
    assert re.search(r"^  conv_norm_0 .* in all 3 utterances$", printed, re.MULTILINE)
    assert printed.splitlines()[-2:] == [
        "The first layer that is not finite is conv_0, in click.",
        "The step fails with click alone. Listen to: /data/cl\ufffdck.wav",
    ]
    assert "\x1b" not in printed  # the file is not trusted


def test_weight_that_is_not_finite_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = replayed(write_batch(write_run(tmp_path, plant_infinity), make_failed()), capsys)
    assert code == 1
    assert "the state before it (step 4): not finite: params.rnn_1.hidden_kernel.0 (1 values)\n" in printed
    assert printed.splitlines()[-2:] == [
        "The state was not finite before the step: params.rnn_1.hidden_kernel.0 (1 values). Delete the folder of that "
        "checkpoint to continue from the one before it, or start anew (--workdir or --overwrite).",
        "The first layer that is not finite is rnn_1, in all 3 utterances.",
    ]
    assert re.search(r"^  head +0 +464 of 464$", printed, re.MULTILINE)


def test_samples_that_are_not_finite_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = make_failed()
    failed.batch["waveforms"][1, [5, 70, 5999, 6000]] = np.nan, np.inf, 3.0, np.nan  # the last index is padding
    _, printed = replayed(write_batch(write_run(tmp_path), failed), capsys)
    assert re.search(r"^      0\.38         3         2 .* second, ", printed, re.MULTILINE)


def test_checkpoint_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path, step=7)
    with pytest.raises(InputError) as caught:
        make_again(make_failed(), folder)
    assert str(caught.value) == (
        f"{folder} must still have the checkpoint of step 4, before the one to replay, got 7. The run has "
        "probably continued since. If the step fails again, training saves a new file."
    )


def test_first_step_of_a_run_needs_no_checkpoint(tmp_path: Path) -> None:
    mesh = data_mesh(jax.devices()[:2])
    drawn = restore(tmp_path, CONFIG, 0, functools.partial(some_state, CONFIG), mesh)
    jax.tree.map(np.testing.assert_array_equal, drawn, some_state(CONFIG))
    assert drawn.step.devices() == set(jax.devices()[:2])


@pytest.mark.parametrize("labels", [[[NUM_LABELS]] * 4, [[-1]] * 4])
def test_batch_of_another_alphabet_is_refused(tmp_path: Path, labels: list[list[int]]) -> None:
    batch = {**make_failed().batch, "labels": np.array(labels, np.int32)}
    with pytest.raises(InputError, match=r"FILE must hold a batch of the run .*, got one of another alphabet or"):
        make_again(make_failed(batch=batch), write_run(tmp_path))


def test_file_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", str(write_batch(tmp_path, make_failed()))]) == 1
    message = (
        "error: RUN must be the folder of a training run, a folder or file that export wrote, or spelling, got "
        f"{tmp_path}, which has no config.json.\n"
    )
    assert capsys.readouterr().err == message


def test_rows_of_more_devices_come_in_the_order_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    """2 devices and 2 micro-batches: the rows of both devices in the first micro-batch, then in the second."""
    by_device = [0, 1, 4, 5, 2, 3, 6, 7]  # device 0: micro-batches 0 and 1; then the same for device 1
    names = [str(i) for i in by_device]
    batch = {"indices": np.array(by_device)}
    one = for_one_device(make_failed(num_devices=2, batch=batch, ids=names, audio=names), num_micro_batches=2)
    assert one.batch["indices"].tolist() == list(range(8))
    assert one.ids == one.audio == [str(i) for i in range(8)]
    assert one.num_devices == 1
    assert "this step failed on 2 devices; one repeats it here" in capsys.readouterr().err


@pytest.mark.slow
def test_step_of_more_devices_than_there_are_gives_the_same_loss(tmp_path: Path) -> None:
    failed = make_failed(num_devices=2)
    folder = write_run(tmp_path)
    few = make_again(failed, folder).loss
    many = make_failed(num_devices=16, ids=make_failed().ids * 4, audio=make_failed().audio * 4)
    batch = {name: np.concatenate([value] * 4) for name, value in failed.batch.items()}
    assert make_again(dataclasses.replace(many, batch=batch), folder).loss == pytest.approx(few, rel=1e-5)

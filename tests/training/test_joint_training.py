"""`train --distributed`: processes die, stop and change in number, and the run ends like that of one process."""

import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ds2_jax import cli
from ds2_jax.config import CheckpointConfig, Config, from_json, to_json
from ds2_jax.parallel.processes import LOST
from ds2_jax.runs.run_folder import last_step, saved_steps
from tests import processes
from tests.small_runs import (
    SMALL_CONFIG,
    some_state,
    with_manifests,
    write_noise,
    write_noise_manifest,
    write_untrained_run,
)
from tests.training.stand_ins import read_lines, without_time_of_writing, written_test

EPOCHS, STEPS, NUM_UTTERANCES = 4, 5, 45
COUNTS, NUMBERS = ("step", "epoch", "alignable", "unalignable", "num_samples"), {"loss", "grad_norm", "dev_loss"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two configurations; an epoch has five batches of nine rows, and one recording is too short.

    smooth.py replaces the model's ReLU of small.py. The gradient of a ReLU jumps if an input is so near to 0 that
    rounding decides; that made norms differ by 2e-4 to 7e-4.
    """
    folder = tmp_path_factory.mktemp("joint")
    transcripts = tuple(f"{word} {other}" for word in ("GO", "NO", "STOP") for other in ("ON", "IN", "LEFT")) * 5
    manifest = write_noise_manifest(folder / "data", transcripts)
    write_noise(folder / "data/all7.wav", seconds=0.3)  # found when it is read: its row stays empty
    config: Config = dataclasses.replace(
        with_manifests(SMALL_CONFIG, manifest),
        epochs=EPOCHS,
        model=dataclasses.replace(SMALL_CONFIG.model, dropout=0.2),
        optim=dataclasses.replace(SMALL_CONFIG.optim, learning_rate=0.001),  # with ten times that, rounding grows
        checkpoint=CheckpointConfig(every_steps=2),
    )
    data = dataclasses.replace(config.data, batch_size=9, on_bad_utterance="skip")
    config = dataclasses.replace(config, data=data)
    (folder / "settings.json").write_text(to_json(config))
    small = (
        "from pathlib import Path\nfrom ds2_jax.config import from_json\n"
        f"config = from_json(Path({str(folder / 'settings.json')!r}).read_text())\n"
    )
    (folder / "small.py").write_text(small)
    smooth = "import jax.numpy as jnp\nfrom ds2_jax.model import network\nnetwork.clipped_relu = jnp.tanh\n"
    (folder / "smooth.py").write_text(small + smooth)
    return folder


def start(folder: Path, run: str, num_processes: int) -> list[subprocess.Popen[str]]:
    words = ["main.py", "train", "--config", folder / "smooth.py", "--workdir", folder / run]
    return processes.start(words, num_processes)


def history(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_until(reached: Callable[[], bool], started: Sequence[subprocess.Popen[str]]) -> None:
    while not reached() and all(process.poll() is None for process in started):
        time.sleep(0.005)


@pytest.mark.slow
def test_processes_of_which_one_is_told_to_stop_save_the_same_step(folder: Path) -> None:
    run = folder / "stopped"
    started = start(folder, "stopped", 2)
    wait_until(lambda: len(history(run)) >= 3, started)
    started[1].send_signal(signal.SIGTERM)
    for code, error in processes.finish(started):
        assert code == 143, error
        assert error.splitlines()[-1] == f"terminated; the same command continues after step {last_step(run)}"
    assert last_step(run) == [line["step"] for line in history(run) if "loss" in line][-1]


@pytest.mark.slow
def test_processes_that_die_stop_and_change_in_number_end_as_one(folder: Path) -> None:
    run, whole = folder / "joint", folder / "whole"
    [(code, error)] = processes.finish(start(folder, "whole", 1))
    assert code == 0, error

    started = start(folder, "joint", 2)
    wait_until(lambda: len(history(run)) >= 3 and last_step(run) is not None, started)  # saving takes its time
    started[1].kill()
    (code, error), _ = processes.finish(started, seconds=60)
    assert code == LOST, error
    last = last_step(run)
    assert last is not None
    assert error.splitlines()[-1].startswith(
        "error: another process of this training run has ended, or cannot be reached ("
    )
    assert error.splitlines()[-1].endswith(f"); the same command continues after step {last}")

    started = start(folder, "joint", 4)
    wait_until(lambda: (last_step(run) or 0) > last, started)
    started[2].send_signal(signal.SIGTERM)
    ended = processes.finish(started)
    stopped = last_step(run)
    assert [code for code, _ in ended] == [143] * 4, ended
    for _, error in ended:
        assert error.splitlines()[-1] == f"terminated; the same command continues after step {stopped}"
    assert f"continuing after step {last}\n" in ended[0][1]
    assert stopped == history(run)[-1]["step"]  # no computed step is lost

    ended = processes.finish(start(folder, "joint", 2))
    assert [code for code, _ in ended] == [0, 0], ended
    assert f"continuing after step {stopped}\n" in ended[0][1]

    assert len(history(run)) == len(history(whole)) == EPOCHS * (STEPS + 1) + 1  # plus the line of the test split
    for line, expected in zip(history(run), history(whole), strict=True):
        for name in COUNTS:  # the same utterances in the same batches
            assert line.get(name) == expected.get(name)
        for name in NUMBERS & expected.keys():
            assert line[name] == pytest.approx(expected[name], rel=1e-5), name
        assert line.get("dev_wer") == expected.get("dev_wer")
    assert saved_steps(run)[-1] == saved_steps(whole)[-1] == EPOCHS * STEPS
    results, expected_results = (read_lines(written_test(each).with_suffix(".jsonl")) for each in (run, whole))
    assert len(results) == len(expected_results) == NUM_UTTERANCES - 1
    assert without_time_of_writing(run)["wer"] == without_time_of_writing(whole)["wer"]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--seed", 1, "seed: 0 in pr"),
        pytest.param("--checkpoint.every-steps", 3, "checkpoint.every_steps: ", marks=pytest.mark.slow),
    ],
)
def test_processes_with_other_settings_are_refused(folder: Path, option: str, value: int, told: str) -> None:
    port = processes.free_port()
    words = ["main.py", "train", "--config", folder / "small.py", "--workdir", folder / "other"]
    started = [
        *processes.start(words, 2, port=port, indices=[0]),
        *processes.start([*words, option, value], 2, port=port, indices=[1]),
    ]
    for code, error in processes.finish(started):
        assert code == 1
        message = (
            "error: All processes of a training run must have the same settings, data, code and devices, got "
            f"different values: {told}"
        )
        assert error.splitlines()[-1].startswith(message)
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--distributed", "--dry-run"],
            "--dry-run must run in one process, got --distributed. Leave one of them out.",
        ),
        (["--num-processes", "2"], "--num-processes must come with --distributed, got 2. Add --distributed."),
        (
            ["--distributed", "--num-processes", "2", "--coordinator", "node1:7000", "--process-index", "2"],
            "--process-index must lie in 0 to 1, got 2. Count the processes from 0.",
        ),
    ],
)
def test_options_that_do_not_fit_are_told(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["train", "--config", str(folder / "small.py"), "--workdir", str(folder / "none"), *options])
    assert (code, capsys.readouterr().err) == (1, f"error: {message}\n")


@pytest.mark.slow
def test_processes_begin_with_the_weights_of_another_model_as_one_does(folder: Path) -> None:
    config = from_json((folder / "settings.json").read_text())
    source = write_untrained_run(folder / "source", config, some_state(config))
    for run, count in (("alone", 1), ("together", 2)):
        words = ["main.py", "train", "--config", folder / "smooth.py", "--epochs", "1", "--init-from", source]
        ended = processes.finish(processes.start([*words, "--workdir", folder / run], count))
        assert [code for code, _ in ended] == [0] * count, ended
        assert "the head's are copied for" in ended[0][1]
    alone, together = (
        [line["loss"] for line in history(folder / run) if "loss" in line] for run in ("alone", "together")
    )
    assert len(alone) == STEPS
    assert together == pytest.approx(alone, rel=1e-4)
    origins = [json.loads((folder / run / "origin.json").read_text()) for run in ("alone", "together")]
    assert origins[0] == origins[1]
    assert origins[0]["weights"]

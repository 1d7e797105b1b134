"""A run that is killed at any moment ends like one that never was: with the same bits and the same history."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ds2_jax.config import AugmentConfig, CheckpointConfig, Config, OptimConfig, from_json, to_json
from ds2_jax.parallel.mesh import data_mesh, replicate
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.runs.run_folder import best_step, last_step, saved_steps
from tests.small_runs import SMALL_CONFIG, some_state, with_manifests, write_noise_manifest
from tests.training.stand_ins import without_time_of_writing, written_test

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 4, 5
"""STEPS is per epoch: nine utterances in batches of two."""
TIMES = {"hours_per_hour", "epoch_seconds", "data_wait_seconds", "wall_seconds"}
MOMENTS = ("epoch", "save", "evaluation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration that uses all random draws, and its undisturbed run, in `whole`."""
    folder = tmp_path_factory.mktemp("survival")
    transcripts = tuple(f"{word} {other}" for word in ("GO", "NO", "STOP") for other in ("ON", "IN", "LEFT"))
    config = dataclasses.replace(
        with_manifests(SMALL_CONFIG, write_noise_manifest(folder / "data", transcripts)),
        epochs=EPOCHS,
        augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10),
        model=dataclasses.replace(SMALL_CONFIG.model, dropout=0.2),
        optim=OptimConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=2, ema_decay=0.9),
        checkpoint=CheckpointConfig(every_steps=2, average=2),
    )
    dev = write_noise_manifest(folder / "dev", 4 * transcripts)  # so that an evaluation takes a while
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dev=dev, batch_size=2, num_buckets=2))
    (folder / "settings.json").write_text(to_json(config))
    (folder / "small.py").write_text(
        "from pathlib import Path\nfrom ds2_jax.config import from_json\n"
        f"config = from_json(Path({str(folder / 'settings.json')!r}).read_text())\n"
    )
    process = start(folder, "whole")
    assert process.wait(timeout=600) == 0, errors(folder, "whole")
    return folder


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """Starts or continues a run in a process; its stderr goes to NAME.err."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
    }
    with (folder / f"{name}.err").open("wb") as file:
        words = ["main.py", "--config", str(folder / "small.py"), "--workdir", str(folder / name)]
        return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=file, stderr=file)


def errors(folder: Path, name: str) -> str:
    return (folder / f"{name}.err").read_text()


def history(run: Path) -> list[dict[str, Any]]:
    """Reads the metrics of a run so far, without times."""
    path = run / "metrics.jsonl"
    lines = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def moment(run: Path) -> str:
    """Tells what a run is doing, from its folder."""
    lines = history(run)
    if any(run.glob("checkpoints/*.orbax-checkpoint-tmp*")):
        return "save"
    if not lines:
        return "preparation"
    ended = lines[-1]["step"] % STEPS == 0
    if not ended:
        return "epoch"
    return (
        "elsewhere"
        if {"dev_wer", "test_wer"} & lines[-1].keys() or last_step(run) != lines[-1]["step"]
        else "evaluation"
    )


def kill_in(process: subprocess.Popen[bytes], run: Path, wanted: str, since: int, delay: float) -> str | None:
    """Kills a process a while after it reaches the `wanted` moment, more than `since` steps into the run.

    Returns:
        The moment in which it was killed; None if it ended first.
    """
    if wanted == "preparation":
        time.sleep(delay)
    begun = False  # until it begins, the folder shows the previous process, whose unsaved steps are dropped
    while wanted != "preparation" and process.poll() is None:
        lines = history(run)
        begun = begun or not lines or lines[-1]["step"] <= (last_step(run) or 0)
        if begun and lines and lines[-1]["step"] > since and moment(run) == wanted:
            time.sleep(delay)
            break
        time.sleep(0.001)
    process.kill()
    if process.wait() == 0:
        return None
    return wanted if wanted == "preparation" else moment(run)  # the folder still shows the previous process


def final_state(run: Path, config: Config) -> Any:
    like = replicate(some_state(config), data_mesh())
    with Checkpoints(run, config) as checkpoints:
        return jax.device_get(checkpoints.resume(like))


def assert_survives(folder: Path, name: str, kills: Sequence[tuple[str, int, float]]) -> Counter[str]:
    """Kills a run again and again, then compares it with the whole one. Counts the kills by moment."""
    run = folder / name
    found: Counter[str] = Counter()
    for wanted, since, delay in kills:
        before = last_step(run)
        process = start(folder, name)
        killed = kill_in(process, run, wanted, max(since, before or 0), delay)
        if killed is None:
            break
        assert process.returncode == -signal.SIGKILL, errors(folder, name)
        found[killed] += 1
        told = [line for line in errors(folder, name).splitlines() if "continuing after step" in line]
        assert all(line.endswith(f"continuing after step {before}") for line in told)
        assert told or before is None or wanted == "preparation"
    assert start(folder, name).wait(timeout=600) == 0, errors(folder, name)
    config, whole = from_json((folder / "settings.json").read_text()), folder / "whole"
    jax.tree.map(np.testing.assert_array_equal, final_state(run, config), final_state(whole, config))
    assert history(run) == history(whole)
    assert [line["step"] for line in history(run) if "loss" in line] == list(range(1, EPOCHS * STEPS + 1))
    assert (saved_steps(run), best_step(run)) == (saved_steps(whole), best_step(whole))
    assert without_time_of_writing(run) == without_time_of_writing(whole)
    lines, expected = (written_test(each).with_suffix(".jsonl").read_text() for each in (run, whole))
    assert lines == expected
    assert (run / "calibration.json").read_text() == (whole / "calibration.json").read_text()
    return found


@pytest.mark.slow
def test_folder_that_is_gone_is_named_and_not_made_anew(folder: Path) -> None:
    """Unmounting a disk leaves an empty folder in its place."""
    run = folder / "gone"
    process = start(folder, "gone")
    while len(history(run)) < 3 and process.poll() is None:
        time.sleep(0.001)
    run.rename(folder / "elsewhere")
    run.mkdir()
    assert process.wait(timeout=60) == 1, errors(folder, "gone")
    place = r"(/\S+)? must (not be moved during training|be writable|have room for)"
    assert re.search(f"\nerror: {run}{place}.*\n$", errors(folder, "gone")), errors(folder, "gone")
    assert not (run / "metrics.jsonl").exists()
    last = last_step(folder / "elsewhere")
    shutil.rmtree(run)
    (folder / "elsewhere").rename(run)
    assert start(folder, "gone").wait(timeout=600) == 0
    assert f"continuing after step {last}\n" in errors(folder, "gone")
    assert history(run) == history(folder / "whole")


@pytest.mark.slow
def test_run_that_is_killed_twenty_times_ends_as_the_whole_one(folder: Path) -> None:
    """Kills come at seeded times until there are twenty, at least three of them in each kind of moment."""
    generator = np.random.default_rng(0)
    found: Counter[str] = Counter()
    for attempt in range(12):
        kills = [
            (str(generator.choice(MOMENTS)), int(since), float(generator.choice([0.0, 0.0, 0.002, 0.02])))
            for since in np.sort(generator.integers(0, EPOCHS * STEPS - 1, 5))
        ]
        kills.insert(int(generator.integers(6)), ("preparation", 0, float(generator.uniform(0.1, 8.0))))
        found += assert_survives(folder, f"killed{attempt}", kills)
        if found.total() >= 20 and all(found[moment] >= 3 for moment in MOMENTS):
            break
    print(dict(found))
    assert found.total() >= 20
    assert all(found[moment] >= 3 for moment in MOMENTS), found

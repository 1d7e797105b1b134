"""The memory of a step, and batches that fill a device."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import Config, OptimConfig
from ds2_jax.config.frames import count_frames
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.system import compilation
from ds2_jax.system.errors import InputError
from ds2_jax.training import memory
from tests.small_runs import SMALL_CONFIG, some_state

QUICK = dataclasses.replace(  # compiles quickly
    SMALL_CONFIG,
    model=dataclasses.replace(SMALL_CONFIG.model, num_layers=1, rnn_type="rnn", dtype="bfloat16"),
    optim=OptimConfig(accumulate=3),
)


def compiled(config: Config, num_rows: int, frames: int, num_devices: int = 1) -> int:
    return memory.compiled_bytes(
        config,
        29,
        num_rows=num_rows,
        padded_samples=frames * 160 - 1,
        label_width=frames // 7,
        mesh=data_mesh(jax.devices()[:num_devices]),
    )


@pytest.mark.slow
def test_devices_share_the_rows_and_pmap_keeps_the_old_state() -> None:
    whole = compiled(QUICK, 96, 200)
    shared = compiled(QUICK, 96, 200, num_devices=8)
    assert whole / 16 < shared < whole / 4
    kept = compiled(dataclasses.replace(QUICK, parallel="pmap"), 96, 200, num_devices=8)
    assert kept - shared >= sum(leaf.nbytes for leaf in jax.tree.leaves(some_state(QUICK)))


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text("from tests.training.test_memory import QUICK as config\n")
    return path


@pytest.mark.slow
def test_the_largest_batch_fills_the_memory_and_no_more(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "batch-seconds", "--config", str(config_file), "--memory", "0.5"]) == 0
    printed = capsys.readouterr()
    seconds = int(printed.out)
    assert re.fullmatch(
        r"compiled for cpu, a step needs about \d+ MiB, plus \d\.\d MiB for each second of audio on a device; "
        r"358 MiB \(75% of 0.5 GB\) are available\n",
        printed.err,
    )
    longest = QUICK.data.max_duration
    held = memory.compiled_bytes(
        QUICK,
        29,
        num_rows=RowLayout(num_micro_batches=3).rows(np.arange(int(seconds / longest))).size,
        padded_samples=count_frames(int(longest * 16_000), 160) * 160 - 1,
        label_width=int(longest * memory.LABELS_PER_SECOND),
        mesh=data_mesh(jax.devices()[:1]),
        compiler_options=compilation.cautious_options(rematerialise=False),
    )
    assert 0.85 * 375e6 < held < 1.02 * 375e6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "0"], "--memory must be positive (GB), got 0.0."),
        (["--memory", "nan"], "--memory must be positive (GB), got nan."),
        (["--memory", "1", "--devices", "0"], "--devices must be at least 1, got 0."),
        (["--memory", "0.01"], "--memory must suffice for one utterance of 20 s, got 0.01 GB (7 MiB for arrays;"),
    ],
)
def test_impossible_devices_are_named(
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(memory, "compiled_bytes", lambda *_, num_rows, **__: 10**9 * num_rows)
    assert cli.main(["data", "batch-seconds", "--config", str(config_file), *words]) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_endless_utterances_are_named(tmp_path: Path) -> None:
    path = tmp_path / "endless.py"
    path.write_text(
        "from ds2_jax.config import Config, DataConfig\nconfig = Config(data=DataConfig(max_duration=float('inf')))\n"
    )
    with pytest.raises(InputError, match=r"^data\.max_duration must be finite here, got inf\. Set the longest"):
        memory.batch_seconds(path, 80, devices=1)

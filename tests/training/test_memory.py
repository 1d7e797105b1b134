"""The formula beside the compiler's layout, and batches that fill a device."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import Config, ModelConfig, OptimConfig
from ds2_jax.config.frames import count_frames
from ds2_jax.model import conv
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.parallel.rows import RowLayout
from ds2_jax.system.errors import InputError
from ds2_jax.training import memory
from tests.small_runs import SMALL_CONFIG

SAVING = Config(optim=OptimConfig(accumulate=2), rematerialise=True)
MODELS = {
    "2 x 256": ModelConfig(hidden_size=256, num_layers=2),
    "4 x 512": ModelConfig(hidden_size=512, num_layers=4),
    "gru, bfloat16": ModelConfig(hidden_size=512, num_layers=3, rnn_type="gru", dtype="bfloat16"),
    "unidirectional rnn": ModelConfig(hidden_size=512, num_layers=3, rnn_type="rnn", bidirectional=False),
    "an4_cpu": ModelConfig(
        hidden_size=256, num_layers=3, channels=(16, 16), frequency_strides=(4, 2), time_reduction=4, dropout=0.2
    ),
}
CASES = {  # rows, frames
    "2 x 256": (Config(model=MODELS["2 x 256"]), 8, 400),
    "4 x 512, accumulated, rematerialised": (dataclasses.replace(SAVING, model=MODELS["4 x 512"]), 32, 800),
    "5 x 1024": (Config(), 16, 1600),
    "5 x 1024, rematerialised": (Config(rematerialise=True), 16, 1600),
    "5 x 1024, accumulated": (dataclasses.replace(SAVING, rematerialise=False), 32, 1600),
    "gru, bfloat16": (Config(model=MODELS["gru, bfloat16"]), 32, 800),
    "gru, accumulated, rematerialised": (
        dataclasses.replace(SAVING, model=dataclasses.replace(MODELS["gru, bfloat16"], dtype="float32")),
        *(64, 800),
    ),
    "unidirectional rnn": (Config(model=MODELS["unidirectional rnn"]), 32, 800),
    "an4_cpu": (Config(model=MODELS["an4_cpu"]), 8, 400),
}
QUICK_CASE = "2 x 256"

QUICK = dataclasses.replace(  # to compile
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


@pytest.mark.parametrize(
    "name",
    [name if name == QUICK_CASE else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_the_formula_is_near_the_compilers_layout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 15 %, with the convolutions as on an accelerator: those of a CPU take Fourier transforms besides."""
    monkeypatch.setattr(conv, "_conv_on_cpu", conv.direct_conv)
    config, num_rows, frames = CASES[name]
    assert memory.estimate(config, 29, num_rows, frames).total / compiled(config, num_rows, frames) == pytest.approx(
        1, abs=0.15
    )


def test_the_parts_of_the_default_model() -> None:
    parts = memory.estimate(Config(), 29, 64, 1600)
    assert parts.parameters == parts.gradients == 4 * 86_618_400
    assert parts.optimizer_state == pytest.approx(2 * parts.parameters, abs=100)  # and the counts of steps
    gates = 2 * 4 * 1024 * 800 * 64 * 4  # both directions, every frame and row
    assert parts.temporaries == gates
    # Of five layers the gates, the cells and, in and out of batch norm, the inputs are kept; the rest is the front end.
    layers = 5 * (gates + gates // 4) + 4 * 2 * gates // 8
    assert layers < parts.activations < 1.2 * layers
    assert memory.estimate(Config(), 29, 128, 1600).activations == 2 * parts.activations
    averaged = memory.estimate(Config(optim=OptimConfig(ema_decay=0.9)), 29, 64, 1600)
    more = averaged.optimizer_state - parts.optimizer_state
    assert parts.parameters < more < 1.01 * parts.parameters  # and the statistics
    assert parts.total == sum(dataclasses.astuple(parts))


def test_what_accumulation_and_rematerialisation_save() -> None:
    whole = memory.estimate(Config(), 29, 64, 1600)
    accumulated = memory.estimate(Config(optim=OptimConfig(accumulate=4)), 29, 64, 1600)
    assert accumulated == dataclasses.replace(memory.estimate(Config(), 29, 16, 1600), gradients=2 * whole.gradients)
    rematerialised = memory.estimate(Config(rematerialise=True), 29, 64, 1600)
    inside = 2 * (4 + 1) * 1024 * 800 * 64 * 4  # gates and cells of both directions
    normalised = 1024 * 800 * 64 * 4
    assert rematerialised.activations == whole.activations - 5 * inside - 4 * normalised
    assert rematerialised.temporaries == whole.temporaries + inside + normalised


@pytest.mark.slow
def test_devices_share_the_rows_and_pmap_keeps_the_old_state() -> None:
    whole = compiled(QUICK, 96, 200)
    shared = compiled(QUICK, 96, 200, num_devices=8)
    assert whole / 16 < shared < whole / 4
    kept = compiled(dataclasses.replace(QUICK, parallel="pmap"), 96, 200, num_devices=8)
    parts = memory.estimate(QUICK, 29, 12, 200)
    assert kept - shared >= parts.parameters + parts.optimizer_state


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
        r"an estimate by the compiler for cpu: \d+ MiB, and \d\.\d MiB for each second of audio on a device; "
        r"358 MiB \(75% of 0.5 GB\) to fill\n",
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
        barriers=False,
    )
    assert 0.85 * 375e6 < held < 1.02 * 375e6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "0"], "--memory must be positive (GB), got 0.0."),
        (["--memory", "nan"], "--memory must be positive (GB), got nan."),
        (["--memory", "1", "--devices", "0"], "--devices must be at least 1, got 0."),
        (["--memory", "0.01"], "--memory must hold one utterance of 20 s, got 0.01 GB, of which 7 MiB are for arrays;"),
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
    with pytest.raises(InputError, match=r"^data\.max_duration must be finite here, got inf\. Give the longest"):
        memory.batch_seconds(path, 80, devices=1)

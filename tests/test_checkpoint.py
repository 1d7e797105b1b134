"""checkpoint.py: states come back whole, or an error says why not."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax import parallel
from ds2_jax.checkpoint import Checkpoints, load_variables
from ds2_jax.config import ENGLISH
from ds2_jax.errors import InputError
from ds2_jax.steps import TrainState
from tests.small_runs import SMALL_CONFIG, some_state, write_untrained_run

CONFIG = dataclasses.replace(SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, num_layers=1, hidden_size=4))


@pytest.fixture(scope="module")
def state() -> TrainState:
    return parallel.replicate(some_state(CONFIG), parallel.data_mesh())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", CONFIG)


def at(state: TrainState, step: int) -> TrainState:
    """A state that its step tells from others."""
    params = jax.tree.map(lambda x: x + step, state.params)
    return dataclasses.replace(state, step=jnp.int32(step), params=params)


def assert_equal(actual: object, expected: object) -> None:
    assert repr(jax.tree.structure(actual)) == repr(jax.tree.structure(expected))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_state_comes_back_whole_and_on_its_devices(tmp_path: Path, state: TrainState) -> None:
    saved = at(state, 7)
    with Checkpoints(tmp_path, ENGLISH) as checkpoints:
        checkpoints.save(saved, 0.5)
        checkpoints.wait()
        restored = checkpoints.restore(7, state)
    assert_equal(jax.device_get(restored), jax.device_get(saved))
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored.params)} == {8}


def test_weights_come_back_without_the_optimiser(tmp_path: Path, state: TrainState) -> None:
    like = {"params": state.params, "batch_stats": state.batch_stats}
    with Checkpoints(tmp_path, ENGLISH) as checkpoints:
        checkpoints.save(at(state, 1), 0.5)
        checkpoints.wait()
        restored = checkpoints.restore_variables(1, like)
    assert_equal(jax.device_get(restored), jax.device_get({**like, "params": at(state, 1).params}))


def test_best_and_latest_two_are_kept(tmp_path: Path, state: TrainState) -> None:
    rates = {1: 0.9, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.7}
    with Checkpoints(tmp_path, ENGLISH) as checkpoints:
        assert checkpoints.latest_step is None
        assert checkpoints.best_step is None
        for step, rate in rates.items():
            checkpoints.save(at(state, step), rate)
        checkpoints.wait()
    with Checkpoints(tmp_path, ENGLISH) as checkpoints:
        assert checkpoints.latest_step == 5
        assert checkpoints.best_step == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]


def test_variables_of_a_run_are_its_best_and_it_can_be_moved(run: Path, tmp_path: Path, state: TrainState) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    variables = load_variables(moved, CONFIG, parallel.data_mesh())
    assert_equal(jax.device_get(variables["params"]), jax.device_get(state.params))


def test_checkpoint_of_another_alphabet_is_refused(run: Path) -> None:
    other = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, alphabet=ENGLISH[::-1]))
    with pytest.raises(InputError) as caught:
        load_variables(run, other, parallel.data_mesh())
    assert str(caught.value) == (
        f"{run / 'checkpoints/0'} must belong to the alphabet {ENGLISH[::-1]!r}, got a checkpoint of {ENGLISH!r}. "
        "Use the run's own data.alphabet."
    )


@pytest.mark.parametrize(
    ("field", "value", "difference"),
    [
        ("hidden_size", 5, "batch_stats.head_norm.mean (4,), not (5,); "),
        ("num_layers", 2, "batch_stats.rnn_1.norm.mean missing, not (4,); "),
        ("bidirectional", False, "params.rnn_0.hidden_kernel (2, 4, 16), not (1, 4, 16); "),
        ("channels", (2, 3), "batch_stats.conv_norm_1.mean (2,), not (3,); "),
    ],
)
def test_checkpoint_of_another_size_is_refused(run: Path, field: str, value: Any, difference: str) -> None:
    model = dataclasses.replace(CONFIG.model, **{field: value})
    with pytest.raises(InputError) as caught:
        load_variables(run, dataclasses.replace(CONFIG, model=model), parallel.data_mesh())
    message = str(caught.value)
    assert message.startswith(f"{run / 'checkpoints/0'} must hold the arrays of this configuration, got other sizes: ")
    assert difference in message
    assert message.endswith(". Use the run's own configuration, or another checkpoint.")


def test_checkpoint_with_more_layers_is_refused(tmp_path: Path) -> None:
    two_layers = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, num_layers=2))
    run = write_untrained_run(tmp_path / "run", two_layers)
    with pytest.raises(
        InputError, match=r"got other sizes: .*batch_stats.rnn_1.norm.mean \(4,\), not there; .* more\. "
    ):
        load_variables(run, CONFIG, parallel.data_mesh())


def test_damaged_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    for path in (damaged / "checkpoints/0/state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(InputError, match="checkpoints/0 must hold the arrays of this configuration, got: "):
        load_variables(damaged, CONFIG, parallel.data_mesh())


def test_run_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} must hold a checkpoint, got none. Train it: "):
        load_variables(tmp_path, CONFIG, parallel.data_mesh())
    assert not any(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path} must hold a checkpoint, got none yet. Wait for the first epoch"):
        load_variables(tmp_path, CONFIG, parallel.data_mesh())


SAVES_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ds2_jax.checkpoint import Checkpoints
from ds2_jax.errors import InputError
from ds2_jax.steps import TrainState

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails as on a full disk
noise = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)  # cannot be compressed
with Checkpoints(Path(sys.argv[1]), "ab") as checkpoints:
    for step in (1, 2):
        try:
            checkpoints.save(TrainState(np.array(step, np.int32), {"w": noise}, {}, {}), 1 / step)
            checkpoints.wait()
            print("saved", step)
        except InputError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
"""


def test_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SAVES_ON_A_FULL_DISK, str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "saved 1", result.stderr
    assert f"{tmp_path / 'checkpoints'} must have room for a checkpoint, got: " in lines[1], result.stderr
    assert "Free space (or lift the file size limit) and run the same command" in lines[1]
    assert result.returncode == 0, result.stderr
    with Checkpoints(tmp_path, "ab") as checkpoints:
        assert checkpoints.latest_step == checkpoints.best_step == 1
        empty = TrainState(jnp.int32(0), {"w": np.zeros(100_000, np.float32)}, {}, {})
        restored = checkpoints.restore(1, empty)
    expected = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    np.testing.assert_array_equal(restored.params["w"], expected)

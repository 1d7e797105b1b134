"""A state is restored as it was saved, or an error says why it cannot be restored."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import CheckpointConfig, Config
from ds2_jax.config.settings import ENGLISH
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import data_mesh, replicate
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints, load_variables
from ds2_jax.system.errors import InputError
from tests.runs.states import CONFIG, assert_equal
from tests.small_runs import some_state, write_untrained_run


def at(state: TrainState, step: int) -> TrainState:
    """Makes a state of a step with weights that no other step has."""
    params = jax.tree.map(lambda x: x + step, state.params)
    return dataclasses.replace(state, step=jnp.int32(step), params=params)


def test_state_comes_back_whole_and_on_its_devices(tmp_path: Path, state: TrainState) -> None:
    saved = at(state, 7)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(saved)
        checkpoints.wait()
        restored = checkpoints.restore(7, state)
    assert_equal(jax.device_get(restored), jax.device_get(saved))
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored.params)} == {8}


def test_weights_come_back_without_the_optimiser(tmp_path: Path, state: TrainState) -> None:
    like = {"params": state.params, "batch_stats": state.batch_stats}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(at(state, 1))
        checkpoints.wait()
        restored = checkpoints.restore_variables(1, like)
    assert_equal(jax.device_get(restored), jax.device_get({**like, "params": at(state, 1).params}))


def test_best_and_latest_two_are_kept(tmp_path: Path, state: TrainState) -> None:
    rates = {1: 0.9, 2: 0.4, 3: 0.6, 4: 0.5, 5: 0.7}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step is None
        assert checkpoints.best_step is None
        for step, rate in rates.items():
            checkpoints.save(at(state, step))
            checkpoints.record(step, rate)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.latest_step == 5
        assert checkpoints.best_step == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]


AVERAGED = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(average=3))


@pytest.mark.parametrize(
    ("rates", "averaged", "kept"),
    [
        ((0.3, 0.9, 0.2, 0.5, 0.4, 0.6), [3, 1, 5], ["1", "3", "5", "6"]),
        ((None,) * 6, [6, 5, 4], ["4", "5", "6"]),
        ((0.3, 0.2), [2, 1], ["1", "2"]),
    ],
)
def test_best_epochs_are_kept_and_averaged(
    tmp_path: Path, state: TrainState, rates: Sequence[float | None], averaged: list[int], kept: list[str]
) -> None:
    run_folder.open_run(tmp_path, AVERAGED, overwrite=False)
    with Checkpoints(tmp_path, AVERAGED) as checkpoints:
        for step, rate in enumerate(rates, start=1):
            checkpoints.save(at(state, 100 * step))  # within an epoch
            checkpoints.save(at(state, step))
            checkpoints.record(step, rate)
            shutil.rmtree(tmp_path / f"checkpoints/{100 * step}")
        assert checkpoints.best_steps == averaged
        best = checkpoints.best_variables(state.variables)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept
    assert best is not None
    assert best[0] == averaged[0]
    expected = jax.tree.map(lambda x: x + np.float32(np.mean(averaged)), jax.device_get(state.params))
    for variables in (best[1], load_variables(tmp_path, AVERAGED, data_mesh())):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), variables["params"], expected)


def test_saves_within_an_epoch_are_not_averaged(tmp_path: Path, state: TrainState) -> None:
    with Checkpoints(tmp_path, AVERAGED) as checkpoints:
        checkpoints.save(at(state, 1))
        checkpoints.wait()
        assert checkpoints.best_steps == [1]  # better than nothing
        checkpoints.save(at(state, 2))
        checkpoints.record(2, None)
        checkpoints.save(at(state, 3))
        checkpoints.wait()
        assert checkpoints.best_steps == [2]


def test_moving_average_is_saved_and_used(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, ema_decay=0.9))
    start = some_state(config)
    average = jax.tree.map(lambda x: x + 1, start.average)
    state = replicate(dataclasses.replace(start, average=average), data_mesh())
    run = write_untrained_run(tmp_path / "run", config, state)
    with Checkpoints(run, config) as checkpoints:
        assert_equal(jax.device_get(checkpoints.restore(0, state)), jax.device_get(state))
    assert_equal(jax.device_get(load_variables(run, config, data_mesh())), jax.device_get(average))


def test_variables_of_a_run_are_its_best_and_it_can_be_moved(run: Path, tmp_path: Path, state: TrainState) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    variables = load_variables(moved, CONFIG, data_mesh())
    assert_equal(jax.device_get(variables["params"]), jax.device_get(state.params))


@pytest.mark.parametrize(
    ("section", "change", "listed"),
    [
        ("data", {"alphabet": "ab"}, f"data.alphabet: checkpoint {ENGLISH!r}, configuration 'ab'"),
        ("features", {"window": "hann"}, "features.window: checkpoint 'hamming', configuration 'hann'"),
        (
            "model",
            {"num_layers": 2, "dropout": 0.5},
            "model.num_layers: checkpoint 1, configuration 2; model.dropout: checkpoint 0.0, configuration 0.5",
        ),
    ],
)
def test_checkpoint_of_other_settings_is_refused(run: Path, section: str, change: dict[str, Any], listed: str) -> None:
    other = dataclasses.replace(CONFIG, **{section: dataclasses.replace(getattr(CONFIG, section), **change)})
    with pytest.raises(InputError) as caught:
        load_variables(run, other, data_mesh())
    message = str(caught.value)
    assert message.startswith(f"{run / 'checkpoints/0'} must have the settings in config.json, got different ones: ")
    assert listed in message
    assert message.endswith(". Restore the run's own settings.")


def test_checkpoint_from_before_a_setting_was_there_is_read(run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    path = old / "checkpoints/0/meta/metadata"
    meta = json.loads(path.read_text())
    assert meta["settings"]["features"].pop("normalisation") == "utterance"
    meta.pop("sha256_of_this")
    path.write_text(json.dumps(meta))
    load_variables(old, CONFIG, data_mesh())
    other = dataclasses.replace(CONFIG, features=dataclasses.replace(CONFIG.features, normalisation="bins"))
    with pytest.raises(InputError, match=r"features\.normalisation: checkpoint None, configuration 'bins'"):
        load_variables(old, other, data_mesh())


def disguised(run: Path, folder: Path, config: Config) -> Path:
    """Copies a run and makes its checkpoint claim to have another configuration."""
    shutil.copytree(run, folder)
    with Checkpoints(folder.parent / "none", config) as checkpoints:
        meta = json.dumps(checkpoints._meta)
    (folder / "checkpoints/0/meta/metadata").write_text(meta)
    return folder


@pytest.mark.parametrize(
    ("field", "value", "difference"),
    [
        ("hidden_size", 5, "batch_stats.head_norm.mean: checkpoint (4,), configuration (5,); "),
        ("num_layers", 2, "batch_stats.rnn_1.norm.mean: checkpoint none, configuration (4,); "),
        ("bidirectional", False, "params.rnn_0.hidden_bias.1: checkpoint (16,), configuration none; "),
        ("channels", (2, 3), "batch_stats.conv_norm_1.mean: checkpoint (2,), configuration (3,); "),
    ],
)
def test_checkpoint_of_another_size_is_refused(
    run: Path, tmp_path: Path, field: str, value: Any, difference: str
) -> None:
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **{field: value}))
    folder = disguised(run, tmp_path / "run", config)
    with pytest.raises(InputError) as caught:
        load_variables(folder, config, data_mesh())
    message = str(caught.value)
    assert message.startswith(
        f"{folder / 'checkpoints/0'} must hold the arrays of this configuration, got other sizes: "
    )
    assert difference in message
    assert message.endswith(". Use the run's own configuration, or another checkpoint.")


def test_checkpoint_with_more_layers_is_refused(tmp_path: Path) -> None:
    two_layers = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, num_layers=2))
    run = disguised(write_untrained_run(tmp_path / "run", two_layers), tmp_path / "copy", CONFIG)
    with pytest.raises(
        InputError,
        match=r"got other sizes: .*batch_stats.rnn_1.norm.mean: checkpoint \(4,\), configuration none; .* more\. ",
    ):
        load_variables(run, CONFIG, data_mesh())


def test_run_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} must hold a checkpoint, got none. Train it: "):
        load_variables(tmp_path, CONFIG, data_mesh())
    assert not any(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(
        InputError, match=f"{tmp_path} must hold a checkpoint, got none yet. Train until the first checkpoint"
    ):
        load_variables(tmp_path, CONFIG, data_mesh())

"""Checkpoints with both directions in one array are read as today's."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ds2_jax.config import Config, OptimConfig
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import data_mesh, replicate
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG, some_state

AVERAGED = dataclasses.replace(SMALL_CONFIG, optim=OptimConfig(ema_decay=0.9))
UNIDIRECTIONAL = dataclasses.replace(
    SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, rnn_type="gru")
)


def drawn_state(config: Config) -> TrainState:
    """Makes a state in which no two arrays are equal, not even in the optimiser."""
    generator = np.random.default_rng(0)
    state = jax.tree.map(lambda x: generator.uniform(0, 9, x.shape).astype(x.dtype), some_state(config))
    return dataclasses.replace(state, step=np.array(3, np.int32), stopped=np.zeros((), bool))


def of_that_time(state: TrainState) -> TrainState:
    def join(node: Any) -> Any:
        if not (isinstance(node, dict) and "hidden_kernel" in node):
            return node
        joined = {name: np.stack(node[name]) for name in ("input_kernel", "input_bias", "hidden_bias")}
        return node | joined | {"hidden_kernel": np.stack(node["hidden_kernel"]).swapaxes(1, 2)}

    return jax.tree.map(join, state, is_leaf=lambda node: isinstance(node, dict) and "hidden_kernel" in node)


def saved_then(folder: Path, config: Config) -> TrainState:
    state = drawn_state(config)
    older = of_that_time(state)
    assert len(jax.tree.leaves(older)) < len(jax.tree.leaves(state)) or not config.model.bidirectional
    with Checkpoints(folder, config) as checkpoints:
        checkpoints.save(older)
    return state


@pytest.mark.parametrize("config", [SMALL_CONFIG, AVERAGED, UNIDIRECTIONAL])
def test_states_and_variables_come_back(config: Config, tmp_path: Path) -> None:
    state = saved_then(tmp_path, config)
    like = replicate(some_state(config), data_mesh())
    with Checkpoints(tmp_path, config) as checkpoints:
        restored = checkpoints.resume(like)
        variables = checkpoints.restore_variables(3, like.variables)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)} == {8}
    for actual, expected in ((restored, state), (variables, state.evaluated)):
        assert repr(jax.tree.structure(actual)) == repr(jax.tree.structure(expected))
        jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_those_of_another_size_are_refused(tmp_path: Path) -> None:
    saved_then(tmp_path, SMALL_CONFIG)
    other = dataclasses.replace(SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, hidden_size=17))
    with Checkpoints(tmp_path, SMALL_CONFIG) as checkpoints, pytest.raises(InputError) as told:
        checkpoints.restore(3, some_state(other))
    # The shapes are compared in the old form; otherwise every array of a direction would count as missing.
    assert "got other sizes: batch_stats.head_norm.mean: checkpoint (16,), configuration (17,); " in str(told.value)
    assert "; and 27 more. Use the run's own configuration" in str(told.value)

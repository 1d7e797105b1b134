"""A small run and its state."""

from pathlib import Path

import pytest

from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import data_mesh, replicate
from tests.runs.states import CONFIG
from tests.small_runs import some_state, write_untrained_run


@pytest.fixture(scope="module")
def state() -> TrainState:
    return replicate(some_state(CONFIG), data_mesh())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", CONFIG)

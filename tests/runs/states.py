"""Small states of training for the tests."""

import dataclasses

import jax
import numpy as np

from tests.small_runs import SMALL_CONFIG

CONFIG = dataclasses.replace(SMALL_CONFIG, model=dataclasses.replace(SMALL_CONFIG.model, num_layers=1, hidden_size=4))


def assert_equal(actual: object, expected: object) -> None:
    assert repr(jax.tree.structure(actual)) == repr(jax.tree.structure(expected))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)

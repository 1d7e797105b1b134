"""Learning rates have the expected values, and updates follow the textbook formulas."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ds2_jax.config import Config, OptimConfig
from ds2_jax.model.optimizer import learning_rate_schedule, make_optimizer


def rates(config: OptimConfig, steps: list[int], steps_per_epoch: int = 10, total_steps: int = 110) -> np.ndarray:
    schedule = learning_rate_schedule(config, steps_per_epoch, total_steps)
    return np.array([jax.jit(schedule)(jnp.int32(step)) for step in steps])


def test_exponential_schedule_falls_after_each_epoch() -> None:
    config = OptimConfig(learning_rate=1e-3, schedule="exponential", anneal=0.9)
    expected = [1e-3, 1e-3, 0.9e-3, 0.9e-3, 0.81e-3]
    np.testing.assert_allclose(rates(config, [0, 9, 10, 19, 20]), expected, rtol=1e-6)


def test_cosine_schedule_ends_at_0() -> None:
    config = OptimConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=10)
    expected = [1e-3, (1 + 0.5**0.5) / 2 * 1e-3, 0.5e-3, 0, 0]
    np.testing.assert_allclose(rates(config, [10, 35, 60, 110, 200]), expected, rtol=1e-5, atol=1e-10)


def test_constant_schedule_stays() -> None:
    config = OptimConfig(learning_rate=1e-3, schedule="constant")
    np.testing.assert_allclose(rates(config, [0, 50, 109]), 1e-3, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "constant"])
def test_warm_up_rises_to_the_peak(schedule: Any) -> None:
    config = OptimConfig(learning_rate=1e-3, schedule=schedule, warmup_steps=4)
    np.testing.assert_allclose(rates(config, [0, 1, 2, 3, 4]), [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3], rtol=1e-6)


def follow(config: OptimConfig, grads: list[np.ndarray], start: np.ndarray) -> list[np.ndarray]:
    """Returns the parameters after each gradient, at a constant learning rate."""
    tx = make_optimizer(Config(optim=dataclasses.replace(config, schedule="constant")), 1, len(grads))
    params = {"kernel": jnp.asarray(start[:-1]), "bias": jnp.asarray(start[-1:])}
    state, path = tx.init(params), []
    for grad in grads:
        updates, state = tx.update({"kernel": jnp.asarray(grad[:-1]), "bias": jnp.asarray(grad[-1:])}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.concatenate([params["kernel"], params["bias"]]))
    return path


@pytest.fixture
def start_and_grads() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(5), [rng.standard_normal(5) * 10.0**-k for k in range(4)]


def test_adamw_is_the_textbooks(start_and_grads: tuple[np.ndarray, list[np.ndarray]]) -> None:
    params, grads = start_and_grads
    config = OptimConfig(learning_rate=0.125, weight_decay=0.3, beta1=0.8, beta2=0.95, epsilon=1e-3, clip_norm=0)
    with jax.enable_x64(True):
        path = follow(config, grads, params)
    first, second = np.zeros(5), np.zeros(5)
    for step, (grad, actual) in enumerate(zip(grads, path, strict=True), start=1):
        first = 0.8 * first + 0.2 * grad
        second = 0.95 * second + 0.05 * grad**2
        direction = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.95**step)) + 1e-3)
        params = params - 0.125 * (direction + 0.3 * params)  # biases decay too, as in torch.optim.AdamW
        np.testing.assert_allclose(actual, params, rtol=1e-10)


def test_sgd_is_nesterovs_with_an_l2_penalty(start_and_grads: tuple[np.ndarray, list[np.ndarray]]) -> None:
    params, grads = start_and_grads
    config = OptimConfig("sgd", learning_rate=0.125, weight_decay=0.3, momentum=0.8, clip_norm=0)
    with jax.enable_x64(True):
        path = follow(config, grads, params)
    velocity = np.zeros(5)
    for grad, actual in zip(grads, path, strict=True):
        penalised = grad + 0.3 * params
        velocity = 0.8 * velocity + penalised
        params = params - 0.125 * (penalised + 0.8 * velocity)
        np.testing.assert_allclose(actual, params, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e6])
def test_clipping_bounds_the_update(scale: float) -> None:
    config = OptimConfig("sgd", learning_rate=1.0, weight_decay=0, momentum=0, clip_norm=2.0)
    grad = np.array([3.0, -4.0, 0.0]) * scale
    (after,) = follow(config, [grad], np.zeros(3))
    np.testing.assert_allclose(after, -grad * min(1, 2 / (5 * scale)), rtol=1e-5)
    (unclipped,) = follow(dataclasses.replace(config, clip_norm=0), [grad], np.zeros(3))
    np.testing.assert_allclose(unclipped, -grad, rtol=1e-5)


def test_optimizer_follows_the_schedule() -> None:
    config = OptimConfig("sgd", learning_rate=1.0, anneal=0.5, weight_decay=0, momentum=0, clip_norm=0)
    tx = make_optimizer(Config(optim=config), steps_per_epoch=2, total_steps=4)
    state, sizes = tx.init(jnp.zeros(1)), []
    for _ in range(4):
        updates, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
        sizes.append(-float(updates[0]))
    assert sizes == [1.0, 1.0, 0.5, 0.5]

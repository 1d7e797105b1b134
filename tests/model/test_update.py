"""What one update counts, what it draws, and what it does not change."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import AugmentConfig
from ds2_jax.model import inference
from ds2_jax.model import update as update_lib
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import SMALL_CONFIG, noise, some_state

CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10),
    model=dataclasses.replace(SMALL_CONFIG.model, dropout=0.3),
    optim=dataclasses.replace(SMALL_CONFIG.optim, ema_decay=0.3),
)
NUM_LABELS = Alphabet(CONFIG.data.alphabet).size
STATE = some_state(CONFIG)
NUM_SAMPLES = 8000
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def train_step() -> Any:
    tx = make_optimizer(CONFIG, 1, 1)
    return jax.jit(functools.partial(update_lib.train_step, config=CONFIG, num_labels=NUM_LABELS, tx=tx))


@pytest.fixture(scope="module")
def eval_step() -> Any:
    return jax.jit(functools.partial(inference.eval_step, config=CONFIG, num_labels=NUM_LABELS))


def make_batch() -> Arrays:
    """Makes two alignable rows, one row too short for its labels, and one empty row."""
    num_samples = np.array([8000, 6000, 700, 0], np.int32)
    waveforms = np.stack([noise(0.5, seed) for seed in range(4)]) * (np.arange(NUM_SAMPLES) < num_samples[:, None])
    labels = np.array([[3, 3, 4], [5, 6, 0], [7, 8, 9], [0, 0, 0]], np.int32)
    num_labels = np.array([3, 2, 3, 0], np.int32)
    indices = np.array([10, 11, 12, -1], np.int32)
    return {
        "waveforms": waveforms,
        "num_samples": num_samples,
        "labels": labels,
        "num_labels": num_labels,
        "indices": indices,
    }


def take(batch: Arrays, rows: list[int]) -> Arrays:
    return {name: value[rows] for name, value in batch.items()}


def test_rows_are_counted(train_step: Any) -> None:
    state, metrics = train_step(STATE, make_batch(), jnp.int32(0))
    counts = {name: int(metrics[name]) for name in ("alignable", "unalignable", "empty", "num_samples")}
    assert counts == {"alignable": 2, "unalignable": 1, "empty": 1, "num_samples": 14_700}
    assert int(state.step) == 1
    assert metrics["grad_norm"] > 0


def test_draws_belong_to_the_utterance_and_the_epoch(train_step: Any) -> None:
    batch = make_batch()
    loss = float(train_step(STATE, batch, jnp.int32(0))[1]["loss"])
    assert float(train_step(STATE, take(batch, [3, 1, 2, 0]), jnp.int32(0))[1]["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(train_step(STATE, batch, jnp.int32(1))[1]["loss"]) != pytest.approx(loss, rel=1e-4)
    others = batch | {"indices": batch["indices"] + 1}
    assert float(train_step(STATE, others, jnp.int32(0))[1]["loss"]) != pytest.approx(loss, rel=1e-4)


def test_batch_without_speech_changes_no_weight(train_step: Any) -> None:
    batch = {name: np.zeros_like(value) for name, value in make_batch().items()}
    batch["indices"] -= 1
    state, metrics = train_step(STATE, batch, jnp.int32(0))
    assert metrics["loss"] == 0
    assert metrics["grad_norm"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, STATE.params)
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, STATE.batch_stats)


def test_average_forgets_what_was_drawn_and_then_decays(train_step: Any) -> None:
    state, expected = STATE, STATE.evaluated
    for share in (2 / 11, 3 / 12, 0.3, 0.3):  # 4/13 and 5/14 would be more than the decay
        state, _ = train_step(state, make_batch(), jnp.int32(0))
        expected = jax.tree.map(lambda old, new, kept=share: kept * old + (1 - kept) * new, expected, state.variables)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.average, expected)
    assert state.evaluated is state.average
    assert not np.allclose(state.average["params"]["head"], state.params["head"], rtol=1e-3)


def test_without_an_average_the_weights_themselves_are_evaluated() -> None:
    state = some_state(SMALL_CONFIG)
    assert state.average == {}
    assert state.evaluated == {"params": state.params, "batch_stats": state.batch_stats}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_all_updates(value: float, train_step: Any) -> None:
    good, poisoned = make_batch(), make_batch()
    poisoned["waveforms"][1, 100] = value
    before, _ = train_step(STATE, good, jnp.int32(0))
    after, metrics = train_step(before, poisoned, jnp.int32(0))
    assert not np.isfinite(metrics["loss"])
    assert after.stopped
    assert_only_stopped_differs(after, before)
    later, metrics = train_step(after, good, jnp.int32(0))
    assert np.isfinite(metrics["loss"])
    assert later.stopped
    assert_only_stopped_differs(later, before)


def test_a_gradient_that_is_not_finite_stops_all_updates(train_step: Any) -> None:
    params = STATE.params | {"head": STATE.params["head"] * np.float32(1e25)}
    before = dataclasses.replace(STATE, params=params)
    after, metrics = train_step(before, make_batch(), jnp.int32(0))
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["grad_norm"])
    assert after.stopped
    assert_only_stopped_differs(after, before)


def assert_only_stopped_differs(one: TrainState, other: TrainState) -> None:
    """Compares the bits of weights, statistics, optimiser and both counts of updates."""
    assert any(np.issubdtype(leaf.dtype, np.integer) for leaf in jax.tree.leaves(other.opt_state))
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(one, stopped=other.stopped), other)


def test_samples_past_the_end_are_never_read(train_step: Any) -> None:
    batch = make_batch()
    past = np.arange(NUM_SAMPLES) >= batch["num_samples"][:, None]
    dirty = batch | {"waveforms": np.where(past, np.float32(np.nan), batch["waveforms"])}
    jax.tree.map(
        np.testing.assert_array_equal,
        train_step(STATE, dirty, jnp.int32(0)),
        train_step(STATE, batch, jnp.int32(0)),
    )


def test_evaluation_draws_nothing_and_rows_do_not_touch(eval_step: Any) -> None:
    variables = {"params": STATE.params, "batch_stats": STATE.batch_stats}
    batch = make_batch()
    output = jax.device_get(eval_step(variables, batch))
    repeated = jax.device_get(eval_step(variables, take(batch, [0, 0, 0, 0]) | {"indices": np.array([1, 2, 3, 4])}))
    np.testing.assert_array_equal(output["alignable"], [True, True, False, False])
    np.testing.assert_array_equal(output["indices"], batch["indices"])
    np.testing.assert_array_equal(output["losses"] > 0, [True, True, False, False])
    assert output["losses"][0] == pytest.approx(repeated["losses"][3], rel=1e-5)
    length = output["output_lengths"][0]
    assert length == 13
    np.testing.assert_allclose(repeated["log_probs"][3, :length], output["log_probs"][0, :length], rtol=1e-4)


def test_evaluation_reads_what_transcription_reads(eval_step: Any) -> None:
    variables = {"params": STATE.params, "batch_stats": STATE.batch_stats}
    batch = make_batch()
    infer = jax.jit(functools.partial(inference.infer, config=CONFIG, num_labels=NUM_LABELS))
    logits, output_lengths = infer(variables, batch["waveforms"], batch["num_samples"])
    losses, _ = ctc_losses(logits, output_lengths, jnp.asarray(batch["labels"]), jnp.asarray(batch["num_labels"]))
    output = eval_step(variables, batch)
    np.testing.assert_allclose(output["log_probs"], jax.nn.log_softmax(logits), rtol=1e-5)
    np.testing.assert_allclose(output["losses"], losses, rtol=1e-5)


def test_weights_follow_the_seed() -> None:
    tx = make_optimizer(CONFIG, 1, 1)
    small = dataclasses.replace(CONFIG.model, num_layers=1, hidden_size=2)
    first, again, other = (
        init_state(dataclasses.replace(CONFIG, model=small, seed=seed), NUM_LABELS, tx) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert not np.array_equal(first.params["head"], other.params["head"])
    assert int(first.step) == 0

"""Training steps with optim.accumulate make one update from several micro-batches."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import Config
from ds2_jax.model import features, spec_augment
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.network import DeepSpeech2, MaskedBatchNorm
from ds2_jax.parallel.rows import RowLayout
from tests.model import test_network
from tests.model.test_network import (
    EMPTY,
    NUM_LABELS,
    SMALL,
    TOLERANCES,
    Arrays,
    assert_trees_close,
    make_batch,
    objective,
)

BATCHES = [np.array([0, 1, 3, 2, 1, EMPTY, last], np.int32) for last in (0, EMPTY)]
"""The micro-batches (0, 1, 3), (2, 1, EMPTY) and (last,) of utterances have 3, 1 and 1 or 0 alignable rows."""
NUM_MICRO_BATCHES = 3
EPOCH = jnp.int32(3)


def split(utterances: np.ndarray, num_micro_batches: int = NUM_MICRO_BATCHES, float_type: type = np.float64) -> Arrays:
    """Orders the batch's rows as one device receives them."""
    rows = RowLayout(1, num_micro_batches).rows(utterances)
    return make_batch(tuple(rows.tolist()), float_type=float_type)


def accumulating(num_micro_batches: int = NUM_MICRO_BATCHES) -> Config:
    return dataclasses.replace(SMALL, optim=dataclasses.replace(SMALL.optim, accumulate=num_micro_batches))


@pytest.fixture
def frozen_statistics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes training normalise with the running statistics, so that no row affects another."""
    call = MaskedBatchNorm.__call__
    monkeypatch.setattr(
        MaskedBatchNorm, "__call__", lambda self, inputs, mask, training: call(self, inputs, mask, training=False)
    )
    test_network.compiled_step.cache_clear()
    yield
    test_network.compiled_step.cache_clear()


@pytest.mark.usefixtures("frozen_statistics")
@pytest.mark.slow
@pytest.mark.parametrize("float_type", [np.float64, np.float32])
def test_gradients_are_the_large_batchs_with_frozen_statistics(float_type: type) -> None:
    """SpecAugment and dropout are on: their draws must depend on the utterance."""
    tolerance = 1e-10 if float_type is np.float64 else 1e-5
    for utterances in BATCHES:
        micro_batches = split(utterances, float_type=float_type)
        actual, counts = objective(micro_batches, accumulating())
        expected, expected_counts = objective(make_batch(tuple(utterances.tolist()), float_type=float_type))
        del actual["statistics"], expected["statistics"]
        assert_trees_close(actual, expected, tolerance)
        assert counts["alignable"] == expected_counts["alignable"] == np.isin(utterances, (0, 1, 3)).sum()
        assert counts["unalignable"] == 1
        assert counts["empty"] == (micro_batches["indices"] < 0).sum()


def one_micro_batch(variables: Any, rows: Arrays) -> Any:
    """Computes the sum of the rows' losses, its gradients and the new statistics, directly with the model."""
    keys = spec_augment.row_keys(SMALL.seed, EPOCH, jnp.asarray(rows["indices"]))
    spectrograms, num_frames = features.extract_features(
        jnp.asarray(rows["waveforms"]), jnp.asarray(rows["num_samples"]), SMALL.features
    )
    spectrograms = spec_augment.spec_augment(spectrograms, num_frames, keys, SMALL.augment)
    model = DeepSpeech2(SMALL.model, NUM_LABELS, dtype=rows["waveforms"].dtype)

    def summed_loss(params: Any) -> Any:
        (logits, lengths), updated = model.apply(
            variables | {"params": params},
            spectrograms,
            num_frames,
            training=True,
            row_keys=keys,
            mutable="batch_stats",
        )
        labels, num_labels = jnp.asarray(rows["labels"]), jnp.asarray(rows["num_labels"])
        return ctc_losses(logits, lengths, labels, num_labels)[0].sum(), updated["batch_stats"]

    (loss, statistics), gradients = jax.value_and_grad(summed_loss, has_aux=True)(variables["params"])
    return {"loss": loss, "gradients": gradients}, statistics


def test_each_micro_batch_is_normalised_alone_and_rows_weigh_the_same() -> None:
    compiled = jax.jit(one_micro_batch, compiler_options=test_network.QUICK_COMPILATION)
    for utterances in BATCHES:
        batch = split(utterances)
        actual, counts = objective(batch, accumulating())
        with jax.enable_x64(True):
            variables = jax.tree.map(lambda x: x.astype(np.float64), test_network.initial_variables(accumulating()))
            parts = []
            for rows in np.split(np.arange(len(batch["indices"])), NUM_MICRO_BATCHES):
                part, statistics = jax.tree.map(
                    np.asarray, compiled(variables, {name: value[rows] for name, value in batch.items()})
                )
                variables = variables | {"batch_stats": statistics}
                parts.append(part)
            summed = jax.tree.map(lambda *each: sum(each), *parts)
            expected = jax.tree.map(lambda total, count=counts["alignable"]: total / count, summed)
        assert_trees_close(actual, expected | {"statistics": variables["batch_stats"]}, TOLERANCES[np.float64])
        assert len({float(part["loss"]) for part in parts}) == NUM_MICRO_BATCHES  # all losses differ
        assert (parts[2]["loss"] == 0) == (utterances[-1] == EMPTY)

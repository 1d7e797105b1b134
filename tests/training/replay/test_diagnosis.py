"""The diagnosis gives the step's own numbers layer by layer, and finds the rows that cause values not finite."""

import dataclasses
import functools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import AugmentConfig
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, train_step
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
from ds2_jax.runs.checksums import named_leaves
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.replay.diagnosis import Diagnosis, keep_rows, make_diagnose, smallest_groups
from tests.small_runs import SMALL_CONFIG, noise, some_state

CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    optim=dataclasses.replace(SMALL_CONFIG.optim, accumulate=2),
    augment=AugmentConfig(num_frequency_masks=1, num_time_masks=1, time_mask_width=10),
    model=dataclasses.replace(SMALL_CONFIG.model, rnn_type="rnn", dropout=0.3),  # compiles sooner than an LSTM
)
NUM_LABELS = Alphabet(CONFIG.data.alphabet).size
LAYERS = "spectrograms conv_0 conv_norm_0 conv_1 conv_norm_1 rnn_0 rnn_1.norm rnn_1 head_norm logits".split()
EPOCH = 3
Arrays = dict[str, np.ndarray]


def make_batch() -> Arrays:
    """Makes two rows of noise, one row of silence with a click, which normalisation makes large, and an empty row."""
    num_samples = np.array([8000, 6000, 8000, 0], np.int32)
    waveforms = np.stack([noise(0.5, seed) for seed in range(4)]) * (np.arange(8000) < num_samples[:, None])
    waveforms[2] = np.arange(8000) == 4000
    return {
        "waveforms": waveforms,
        "num_samples": num_samples,
        "labels": np.array([[3, 3, 4], [5, 6, 0], [7, 0, 0], [0, 0, 0]], np.int32),
        "num_labels": np.array([3, 2, 1, 0], np.int32),
        "indices": np.array([10, 11, 12, -1], np.int32),
    }


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return data_mesh(jax.devices()[:2])


@pytest.fixture(scope="module")
def diagnose(mesh: jax.sharding.Mesh) -> Any:
    return make_diagnose(CONFIG, NUM_LABELS, mesh)


def variables_of(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def test_loss_and_gradient_are_those_of_the_step(mesh: jax.sharding.Mesh, diagnose: Any) -> None:
    tx = make_optimizer(CONFIG, 1, 1)
    step = functools.partial(train_step, config=CONFIG, num_labels=NUM_LABELS, tx=tx)
    state = replicate(some_state(CONFIG), mesh)
    _, metrics, _ = parallel_train_step(step, mesh)(state, make_batch(), jnp.int32(EPOCH))
    diagnosis = diagnose(variables_of(some_state(CONFIG)), make_batch(), EPOCH)
    assert diagnosis.loss == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert diagnosis.grad_norm == pytest.approx(float(metrics["grad_norm"]), rel=1e-4)
    assert diagnosis.finite
    assert diagnosis.losses.sum() / diagnosis.alignable.sum() == pytest.approx(diagnosis.loss, rel=1e-5)
    np.testing.assert_array_equal(diagnosis.alignable, [True, True, True, False])
    assert list(diagnosis.layers) == LAYERS
    assert diagnosis.gradients.keys() == named_leaves(some_state(CONFIG).params).keys()
    for values in [*diagnosis.layers.values(), *diagnosis.gradients.values()]:
        assert not values.not_finite.any()


def with_weight(name: str, change: Any) -> dict[str, Any]:
    variables = variables_of(some_state(CONFIG))
    layer, kind = name.split(".")
    variables["params"][layer][kind] = change(variables["params"][layer][kind])
    return variables


def first_not_finite(diagnosis: Diagnosis) -> tuple[str, list[int]]:
    return next(
        (name, values.not_finite.tolist()) for name, values in diagnosis.layers.items() if values.not_finite.any()
    )


def test_row_that_overflows_is_seen_where_it_does(diagnose: Any) -> None:
    variables = with_weight("conv_0.kernel", lambda kernel: kernel * np.float32(1.75e36))
    name, rows = first_not_finite(diagnose(variables, make_batch(), EPOCH))
    assert name == "conv_0"
    assert [count > 0 for count in rows] == [False, False, True, False]
    groups = smallest_groups(
        [0, 1, 2], lambda rows: not diagnose(variables, keep_rows(make_batch(), rows), EPOCH).finite
    )
    assert list(groups) == [[2]]


def test_weight_that_is_not_finite_shows_in_its_layer(diagnose: Any) -> None:
    def plant(kernels: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        kernels[0][4, 3] = np.inf
        return kernels

    diagnosis = diagnose(with_weight("rnn_1.hidden_kernel", plant), make_batch(), EPOCH)
    name, rows = first_not_finite(diagnosis)
    assert name == "rnn_1"
    assert [count > 0 for count in rows] == [True, True, True, False]
    assert not diagnosis.finite
    assert np.isnan(diagnosis.losses[:3]).all()
    assert diagnosis.gradients["rnn_0.input_kernel.0"].not_finite > 0


def test_values_past_the_valid_frames_do_not_count(diagnose: Any) -> None:
    batch = make_batch()
    batch["waveforms"][1, 6000:] = np.nan
    batch["waveforms"][3] = np.inf
    diagnosis = diagnose(variables_of(some_state(CONFIG)), batch, EPOCH)
    assert diagnosis.finite
    assert not any(values.not_finite.any() for values in diagnosis.layers.values())
    assert all(values.largest[3] == 0 for values in diagnosis.layers.values())


def test_rows_that_are_left_out_are_empty() -> None:
    kept = keep_rows(make_batch(), [1])
    np.testing.assert_array_equal(kept["indices"], [-1, 11, -1, -1])
    for name, value in make_batch().items():
        assert kept[name].dtype == value.dtype
        np.testing.assert_array_equal(kept[name][1], value[1])
        assert name == "indices" or not kept[name][[0, 2, 3]].any()


@hypothesis.given(st.integers(1, 40), st.data())
def test_every_row_that_fails_by_itself_is_found(num_rows: int, data: st.DataObject) -> None:
    guilty = data.draw(st.sets(st.integers(0, num_rows - 1), min_size=1))
    asked: list[Any] = []

    def fails(rows: Any) -> bool:
        asked.append(rows)
        return bool(guilty & set(rows))

    assert list(smallest_groups(range(num_rows), fails)) == [[row] for row in sorted(guilty)]
    assert len(asked) <= 2 * len(guilty) * np.ceil(np.log2(num_rows))


@hypothesis.given(st.integers(2, 40), st.data())
def test_rows_that_only_fail_together_stay_together(num_rows: int, data: st.DataObject) -> None:
    pair = data.draw(st.sets(st.integers(0, num_rows - 1), min_size=2, max_size=2))
    [group] = smallest_groups(range(num_rows), lambda rows: pair <= set(rows))
    assert pair <= set(group)
    assert not any(pair <= set(half) for half in (group[: len(group) // 2], group[len(group) // 2 :]))

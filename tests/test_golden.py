"""Parity with PyTorch's own layers, whose outputs tests/golden/make_golden.py stored."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.loss import ctc_losses
from ds2_jax.lstm import RecurrentWeights, recurrent
from ds2_jax.model import DeepSpeech2, Lookahead, clipped_relu
from tests.golden import inputs

LAYER = 1e-5
MODEL = 1e-4


def stored(area: str, case: str) -> dict[str, np.ndarray]:
    """What PyTorch gave for a case."""
    with np.load(Path(__file__).parent / "golden" / f"{area}.npz") as arrays:
        return {name.removeprefix(f"{case}/"): arrays[name] for name in arrays if name.startswith(f"{case}/")}


def gradients_of(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = "gradients."
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def assert_close(actual: Any, expected: np.ndarray, tolerance: float, what: str = "") -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, what
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what} is off by {error:.1e} of its largest entry"


def assert_trees_close(actual: Any, expected: Any, tolerance: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, value), reference in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert_close(value, reference, tolerance, jax.tree_util.keystr(path))


def run_layer(name: str, values: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    case = inputs.RECURRENT_CASES[name]
    return recurrent(case.rnn_type, values, jnp.array(case.lengths), RecurrentWeights(**weights))


@pytest.mark.parametrize("name", inputs.RECURRENT_CASES)
def test_recurrent_layer(name: str) -> None:
    values, weights, _ = inputs.recurrent_inputs(name)
    outputs = jax.jit(run_layer, static_argnums=0)(name, values, inputs.recurrent_to_ours(weights))
    assert_close(outputs, stored("recurrent", name)["outputs"], LAYER)


@pytest.mark.parametrize("name", [name for name, case in inputs.RECURRENT_CASES.items() if case.hidden_size < 100])
def test_recurrent_gradients(name: str) -> None:
    values, weights, cotangents = inputs.recurrent_inputs(name)

    @jax.jit
    def pullback(values: jax.Array, weights: dict[str, jax.Array]) -> Any:
        return jax.vjp(lambda v, w: run_layer(name, v, w), values, weights)[1](jnp.asarray(cotangents))

    d_values, d_weights = pullback(jnp.asarray(values), jax.tree.map(jnp.asarray, inputs.recurrent_to_ours(weights)))
    expected = gradients_of(stored("recurrent", name))
    assert_close(d_values, expected.pop("inputs"), LAYER)
    assert_trees_close(d_weights, inputs.recurrent_to_ours(expected), LAYER)


def test_lookahead() -> None:
    values, kernel = inputs.lookahead_inputs()
    params = {"kernel": kernel[:, 0].T}
    outputs = clipped_relu(Lookahead(kernel.shape[-1]).apply({"params": params}, jnp.asarray(values)))
    assert_close(outputs, stored("lookahead", "clipped")["outputs"], LAYER)


def apply_model(case: inputs.ModelCase, params: Any, batch_stats: Any, **options: Any) -> Any:
    model = DeepSpeech2(case.config, inputs.NUM_LABELS)
    variables = {"params": params, "batch_stats": batch_stats}
    num_frames = jnp.array(case.num_frames_of_rows)
    return model.apply(variables, jnp.asarray(inputs.spectrograms(case)), num_frames, case.train, **options)


@pytest.mark.parametrize("name", inputs.FRONT_END_CASES)
def test_front_end(name: str) -> None:
    case = inputs.FRONT_END_CASES[name]
    _, updates = apply_model(
        case,
        *inputs.model_to_ours(inputs.model_weights(case), case.config),
        capture_intermediates=lambda module, _: module.name == "conv_norm_1",
        mutable=["intermediates", "batch_stats"],
    )
    (normalised,) = updates["intermediates"]["conv_norm_1"]["__call__"]
    expected = stored("front_end", name)
    outputs = clipped_relu(normalised).transpose(0, 3, 2, 1)  # [B, C, F', T']
    assert_close(outputs, expected["outputs"], LAYER)
    if case.train:
        for norm in ("conv_norm_0", "conv_norm_1"):
            assert_close(updates["batch_stats"][norm]["mean"], expected[f"{norm}.running_mean"], LAYER)
            assert_close(updates["batch_stats"][norm]["var"], expected[f"{norm}.running_var"], LAYER)


@pytest.mark.parametrize("name", [name for name, case in inputs.MODEL_CASES.items() if not case.train])
def test_whole_model(name: str) -> None:
    case = inputs.MODEL_CASES[name]
    logits, output_lengths = apply_model(case, *inputs.model_to_ours(inputs.model_weights(case), case.config))
    expected = stored("model", name)
    np.testing.assert_array_equal(output_lengths, expected["output_lengths"])
    for row, length in enumerate(expected["output_lengths"]):
        assert_close(logits[row, :length], expected["logits"][row, :length], MODEL)


def test_whole_model_in_training() -> None:
    case = inputs.MODEL_CASES["train"]
    expected = stored("model", "train")
    num_labels = np.array([len(row) for row in case.labels_of_rows])
    labels = np.zeros((len(num_labels), num_labels.max()), dtype=np.int32)
    for row, values in enumerate(case.labels_of_rows):
        labels[row, : len(values)] = values

    @jax.jit
    def summed_loss(params: Any, batch_stats: Any) -> Any:
        (logits, lengths), updates = apply_model(case, params, batch_stats, mutable=["batch_stats"])
        losses, _ = ctc_losses(logits, lengths, jnp.asarray(labels), jnp.asarray(num_labels))
        return losses.sum(), (logits, updates["batch_stats"])

    weights = jax.tree.map(jnp.asarray, inputs.model_to_ours(inputs.model_weights(case), case.config))
    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(summed_loss, has_aux=True)(*weights)

    assert_close(logits, expected["logits"], MODEL)
    assert_close(loss, expected["loss"], MODEL)
    wanted_gradients, wanted_stats = inputs.model_to_ours(gradients_of(expected) | expected, case.config)
    assert_trees_close(batch_stats, wanted_stats, MODEL)
    for layer in ("conv_0", "conv_1"):  # batch norm takes a bias away again: its gradient is zero but for rounding
        rounding = np.abs(gradients[layer].pop("bias")).max()
        assert rounding < MODEL * np.abs(wanted_gradients[layer]["kernel"]).max()
        del wanted_gradients[layer]["bias"]
    assert_trees_close(gradients, wanted_gradients, MODEL)


def run_ctc(float_type: type) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Losses [B], gradients [B, T', V] and alignable [B] of the stored batch."""
    logits, *lengths_and_labels = inputs.ctc_batch()

    @jax.jit
    def summed(logits: jax.Array) -> Any:
        losses, alignable = ctc_losses(logits, *map(jnp.asarray, lengths_and_labels))
        return losses.sum(), (losses, alignable)

    gradients, (losses, alignable) = jax.grad(summed, has_aux=True)(jnp.asarray(logits, dtype=float_type))
    return losses, gradients, alignable


ALIGNABLE = [True] * 7 + [False] * 4

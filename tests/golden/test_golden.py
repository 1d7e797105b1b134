"""The model gives the same outputs as PyTorch's layers, which tests/golden/make_golden.py has stored."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import ModelConfig
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.network import DeepSpeech2, Lookahead, clipped_relu
from ds2_jax.model.recurrent import RecurrentWeights, recurrent
from tests.golden import inputs

LAYER = 1e-5
MODEL = 1e-4


def stored(area: str, case: str) -> dict[str, np.ndarray]:
    """Reads PyTorch's outputs for a case."""
    with np.load(Path(__file__).parent / f"{area}.npz") as arrays:
        return {name.removeprefix(f"{case}/"): arrays[name] for name in arrays if name.startswith(f"{case}/")}


def gradients_of(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = "gradients."
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def assert_close(actual: Any, expected: np.ndarray, tolerance: float, what: str = "The output") -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, what
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what} is off by {error:.1e} of its largest entry"


def assert_trees_close(actual: Any, expected: Any, tolerance: float) -> None:
    values, references = dict(jax.tree.leaves_with_path(actual)), dict(jax.tree.leaves_with_path(expected))
    assert values.keys() == references.keys()
    for path, value in values.items():
        assert_close(value, references[path], tolerance, jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", inputs.RECURRENT_CASES)
def test_recurrent_layer_and_its_gradients(name: str) -> None:
    values, weights, cotangents = inputs.recurrent_inputs(name)
    expected = stored("recurrent", name)

    @jax.jit
    def run(values: jax.Array, weights: dict[str, tuple[jax.Array, ...]], cotangents: jax.Array) -> Any:
        case = inputs.RECURRENT_CASES[name]

        def layer(values: jax.Array, weights: dict[str, tuple[jax.Array, ...]]) -> jax.Array:
            directions = [
                RecurrentWeights(**dict(zip(weights, own, strict=True))) for own in zip(*weights.values(), strict=True)
            ]
            return recurrent(case.rnn_type, values, jnp.array(case.lengths), directions)

        if "gradients.inputs" not in expected:  # the full-size layer
            return layer(values, weights), None
        outputs, pullback = jax.vjp(layer, values, weights)
        return outputs, pullback(cotangents)

    outputs, gradients = run(values, inputs.recurrent_to_ours(weights), cotangents)
    assert_close(outputs, expected["outputs"], LAYER)
    if gradients is not None:
        wanted = gradients_of(expected)
        wanted_inputs = wanted.pop("inputs")
        assert_trees_close(gradients, (wanted_inputs, inputs.recurrent_to_ours(wanted)), LAYER)


def test_lookahead() -> None:
    values, kernel = inputs.lookahead_inputs()
    params = {"kernel": kernel[:, 0].T}
    outputs = Lookahead(kernel.shape[-1]).apply({"params": params}, jnp.asarray(values))
    assert isinstance(outputs, jax.Array)
    assert_close(clipped_relu(outputs), stored("lookahead", "clipped")["outputs"], LAYER)


def apply_model(case: inputs.ModelCase, params: Any, batch_stats: Any, **options: Any) -> Any:
    """Returns logits and output lengths, and the collections named `mutable` if there are any."""
    model = DeepSpeech2(case.config, inputs.NUM_LABELS)

    @jax.jit
    def run(variables: Any, spectrograms: jax.Array, num_frames: jax.Array) -> Any:
        return model.apply(variables, spectrograms, num_frames, case.train, **options)

    variables = {"params": params, "batch_stats": batch_stats}
    return run(variables, inputs.spectrograms(case), np.array(case.num_frames_of_rows, np.int32))


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

    def summed_loss(params: Any, batch_stats: Any) -> Any:
        (logits, lengths), updates = apply_model(case, params, batch_stats, mutable=["batch_stats"])
        losses, _ = ctc_losses(logits, lengths, jnp.asarray(labels), jnp.asarray(num_labels))
        return losses.sum(), (logits, updates["batch_stats"])

    weights = jax.tree.map(jnp.asarray, inputs.model_to_ours(inputs.model_weights(case), case.config))
    (loss, (logits, batch_stats)), gradients = jax.jit(jax.value_and_grad(summed_loss, has_aux=True))(*weights)

    assert_close(logits, expected["logits"], MODEL)
    assert_close(loss, expected["loss"], MODEL)
    wanted_gradients, wanted_stats = inputs.model_to_ours(gradients_of(expected) | expected, case.config)
    assert_trees_close(batch_stats, wanted_stats, MODEL)
    for layer in ("conv_0", "conv_1"):  # batch norm cancels a bias: its gradient is zero except for rounding
        rounding = np.abs(gradients[layer].pop("bias")).max()
        assert rounding < MODEL * np.abs(wanted_gradients[layer]["kernel"]).max()
        del wanted_gradients[layer]["bias"]
    assert_trees_close(gradients, wanted_gradients, MODEL)


def run_ctc(float_type: type) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes losses [B], gradients [B, T', V] and alignable [B] of the stored batch."""
    logits, *lengths_and_labels = inputs.ctc_batch()

    def summed(logits: jax.Array) -> Any:
        losses, alignable = ctc_losses(logits, *map(jnp.asarray, lengths_and_labels))
        return losses.sum(), (losses, alignable)

    gradients, (losses, alignable) = jax.jit(jax.grad(summed, has_aux=True))(logits.astype(float_type))
    return losses, gradients, alignable


def test_ctc_in_float64() -> None:
    expected = stored("ctc", "batch")
    with jax.enable_x64(True):
        losses, gradients, alignable = run_ctc(np.float64)
    np.testing.assert_array_equal(alignable, expected["losses"] > 0)
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-12)
    np.testing.assert_allclose(gradients, expected["gradients"], rtol=0, atol=1e-7)  # stored in float32


def test_ctc_in_float32() -> None:
    expected = stored("ctc", "batch")
    losses, gradients, alignable = run_ctc(np.float32)
    assert losses.dtype == gradients.dtype == np.float32
    for row, (_, labels) in enumerate(inputs.ctc_rows()):
        if alignable[row]:
            assert_close(losses[row], expected["losses"][row], LAYER, f"loss of row {row}")
            assert_close(gradients[row], expected["gradients"][row], LAYER, f"gradient of row {row}, {labels}")
        else:
            assert losses[row] == 0
            assert not gradients[row].any()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_initial_weights_are_pytorchs(bidirectional: bool) -> None:
    config = ModelConfig(bidirectional=bidirectional, hidden_size=40, num_layers=2, channels=(8, 16))
    spectrograms, num_frames = jnp.zeros((1, 8, inputs.NUM_BINS)), jnp.array([8])
    variables = jax.jit(DeepSpeech2(config, inputs.NUM_LABELS).init)(jax.random.key(0), spectrograms, num_frames)
    params = dict(variables["params"])
    norms = [params.pop("conv_norm_0"), params.pop("conv_norm_1"), params.pop("head_norm")]
    params["rnn_1"] = dict(params["rnn_1"])
    norms.append(params["rnn_1"].pop("norm"))
    for norm in norms:
        np.testing.assert_array_equal(norm["scale"], 1)
        np.testing.assert_array_equal(norm["bias"], 0)
    for path, statistic in jax.tree.leaves_with_path(variables["batch_stats"]):
        np.testing.assert_array_equal(statistic, float("var" in jax.tree_util.keystr(path)))

    # PyTorch draws weights and biases from U(-1/sqrt(n), 1/sqrt(n)), where n is the number of inputs of a unit, or the
    # hidden size of a recurrent layer.
    num_inputs = {"conv_0": 41 * 11, "conv_1": 8 * 21 * 11, "rnn_0": 40, "rnn_1": 40, "head": 40}
    if not bidirectional:
        num_inputs["lookahead"] = 20
    assert params.keys() == num_inputs.keys()
    for path, weights in jax.tree.leaves_with_path(params):
        scaled = np.asarray(weights) * np.sqrt(num_inputs[path[0].key])
        assert np.abs(scaled).max() <= 1 + 1e-6
        # The mean and the deviation are within five standard errors of those of the uniform distribution.
        assert np.mean(scaled) == pytest.approx(0, abs=5 * np.sqrt(1 / 3 / weights.size))
        assert np.std(scaled) == pytest.approx(3**-0.5, abs=5 * np.sqrt(1 / 15 / weights.size))

"""The hand-written gradient equals autodiff's, and padding changes nothing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.model.recurrent import NUM_GATES, RecurrentWeights, RnnType, recurrent
from ds2_jax.system.compilation import compiler_options

LENGTHS = (6, 0, 3, 1)
NUM_FRAMES, NUM_INPUTS, HIDDEN = 7, 4, 3


def arrays(rnn_type: str, directions: int, float_type: type) -> tuple[np.ndarray, list[RecurrentWeights], np.ndarray]:
    """Draws inputs [B, T', F], weights and a cotangent [B, T', H]; padding is random too."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(float_type)

    outputs = NUM_GATES[rnn_type] * HIDDEN
    weights = [
        RecurrentWeights(draw(NUM_INPUTS, outputs), draw(outputs, HIDDEN), draw(outputs), draw(outputs))
        for _ in range(directions)
    ]
    return draw(len(LENGTHS), NUM_FRAMES, NUM_INPUTS), weights, draw(len(LENGTHS), NUM_FRAMES, HIDDEN)


def one_frame(rnn_type: str, frame: jax.Array, state: tuple[jax.Array, ...], weights: RecurrentWeights) -> Any:
    """Computes a cell as its paper writes it, for one row: frame [F], state ([H],) or ([H], [H])."""
    input_kernel, hidden_kernel, input_bias, hidden_bias = weights
    (hidden, *cell), sigmoid = state, jax.nn.sigmoid
    x = (frame @ input_kernel + input_bias).reshape(-1, HIDDEN)
    h = (hidden_kernel @ hidden + hidden_bias).reshape(-1, HIDDEN)
    if rnn_type == "lstm":
        new_cell = sigmoid(x[1] + h[1]) * cell[0] + sigmoid(x[0] + h[0]) * jnp.tanh(x[2] + h[2])
        return sigmoid(x[3] + h[3]) * jnp.tanh(new_cell), new_cell
    if rnn_type == "gru":
        reset, update = sigmoid(x[0] + h[0]), sigmoid(x[1] + h[1])
        return ((1 - update) * jnp.tanh(x[2] + reset * h[2]) + update * hidden,)
    return (jnp.tanh(x[0] + h[0]),)


def reference(rnn_type: str, inputs: jax.Array, weights: list[RecurrentWeights]) -> jax.Array:
    """Runs each row by itself, cut to its valid frames, frame by frame."""
    rows = []
    for row, length in zip(inputs, LENGTHS, strict=True):
        total = jnp.zeros((length, HIDDEN), inputs.dtype)
        for direction, own in enumerate(weights):

            def step(state: Any, frame: jax.Array, own: RecurrentWeights = own) -> Any:
                state = one_frame(rnn_type, frame, state, own)
                return state, state[0]

            start = (jnp.zeros(HIDDEN, inputs.dtype),) * (2 if rnn_type == "lstm" else 1)
            if length:
                total += jax.lax.scan(step, start, row[:length], reverse=direction == 1)[1]
        rows.append(jnp.pad(total, ((0, NUM_FRAMES - length), (0, 0))))
    return jnp.stack(rows)


@functools.cache
def outputs_and_gradients(rnn_type: RnnType, dtype: Any = None, use_reference: bool = False) -> Any:
    """Returns the outputs and the gradients of inputs and weights. `dtype` defaults to the type of the inputs."""

    def layer(inputs: jax.Array, weights: list[RecurrentWeights]) -> jax.Array:
        if use_reference:
            return reference(rnn_type, inputs, weights)
        return recurrent(rnn_type, inputs, jnp.array(LENGTHS, jnp.int32), weights, dtype or inputs.dtype)

    @jax.jit
    def run(inputs: jax.Array, weights: list[RecurrentWeights], cotangent: jax.Array) -> Any:
        outputs, pullback = jax.vjp(layer, inputs, weights)
        return outputs, pullback(cotangent)

    return run


@pytest.mark.parametrize(("directions", "float_type"), [(1, np.float64), (2, np.float64), (2, np.float32)])
@pytest.mark.parametrize("rnn_type", NUM_GATES)
def test_equals_the_derived_gradient(rnn_type: RnnType, directions: int, float_type: type) -> None:
    tolerance = 1e-10 if float_type is np.float64 else 1e-5
    values = arrays(rnn_type, directions, float_type)
    with jax.enable_x64(float_type is np.float64):
        actual = outputs_and_gradients(rnn_type)(*values)
        expected = outputs_and_gradients(rnn_type, use_reference=True)(*values)
    for (path, one), other in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == float_type
        error = np.abs(one - other).max() / np.abs(other).max()
        assert error <= tolerance, f"{jax.tree_util.keystr(path)} is off by {error:.1e} of its largest entry"


@pytest.mark.parametrize("rnn_type", NUM_GATES)
def test_padding_gets_no_gradient(rnn_type: RnnType) -> None:
    outputs, (d_inputs, _) = outputs_and_gradients(rnn_type)(*arrays(rnn_type, 2, np.float32))
    for row, length in enumerate(LENGTHS):
        assert not outputs[row, length:].any()
        assert not d_inputs[row, length:].any()
        assert (d_inputs[row, :length] != 0).all()


@pytest.mark.parametrize("rnn_type", NUM_GATES)
def test_nan_in_padding_does_not_spread(rnn_type: RnnType) -> None:
    inputs, weights, cotangent = arrays(rnn_type, 2, np.float32)
    poisoned, poisoned_cotangent = inputs.copy(), cotangent.copy()
    for row, length in enumerate(LENGTHS):
        poisoned[row, length:] = np.nan
        poisoned_cotangent[row, length:] = np.nan
    run = outputs_and_gradients(rnn_type)
    clean, dirty = run(inputs, weights, cotangent), run(poisoned, weights, poisoned_cotangent)
    for one, other in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rnn_type", NUM_GATES)
def test_bfloat16_products_are_close(rnn_type: RnnType) -> None:
    values = arrays(rnn_type, 2, np.float32)
    close = outputs_and_gradients(rnn_type, dtype=jnp.bfloat16)(*values)
    exact = outputs_and_gradients(rnn_type)(*values)
    for one, other in zip(jax.tree.leaves(close), jax.tree.leaves(exact), strict=True):
        assert one.dtype == jnp.float32
        assert 0 < np.abs(one - other).max() <= 0.03 * np.abs(other).max()


def test_cell_state_stays_float32() -> None:
    """1000 small steps add up. A bfloat16 cell would stop at 0.5."""
    num_frames, step = 1_000, 1e-3
    weights = RecurrentWeights(
        jnp.zeros((1, 4)), jnp.zeros((4, 1)), jnp.array([30.0, 30.0, np.arctanh(step), 30.0]), jnp.zeros(4)
    )
    outputs = recurrent("lstm", jnp.zeros((1, num_frames, 1)), jnp.array([num_frames]), [weights], jnp.bfloat16)
    np.testing.assert_allclose(outputs[0, :, 0], np.tanh(step * np.arange(1, num_frames + 1)), rtol=1e-3)


def test_barriers_that_stay_save_memory() -> None:
    num_layers, hidden, num_frames, batch = 4, 32, 100, 8
    kernel, bias = jnp.zeros((hidden, 4 * hidden)), jnp.zeros(4 * hidden)
    weights = [[RecurrentWeights(kernel, kernel.T, bias, bias)] * 2] * num_layers

    def loss(weights: list[list[RecurrentWeights]], inputs: jax.Array) -> jax.Array:
        for each in weights:
            inputs = recurrent("lstm", inputs, jnp.full(batch, num_frames), each)
        return inputs.sum()

    def temporaries(options: dict[str, str]) -> float:
        lowered = jax.jit(jax.grad(loss), compiler_options=options).lower(
            weights, jnp.zeros((batch, num_frames, hidden))
        )
        analysis: Any = lowered.compile().memory_analysis()
        return float(analysis.temp_size_in_bytes)

    # The least that the gradient needs: gates, cells, sum of the directions.
    kept = num_layers * num_frames * batch * hidden * (2 * 4 + 2 + 1) * 4
    assert kept < temporaries(compiler_options()) < 0.7 * temporaries({})

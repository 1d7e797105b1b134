"""Recurrent layers as array functions: LSTM, GRU and tanh cells over padded sequences, with a hand-written gradient.

Inside this file arrays are time-major ([T', B, ...]); `recurrent` takes and returns batch-major ones.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ds2_jax import lengths as lengths_lib

RnnType = Literal["lstm", "gru", "rnn"]
State = tuple[jax.Array, ...]  # ([B, H] hidden,) and for the LSTM ([B, H] cell,) behind it

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, State]

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
NUM_STATES = {"lstm": 2, "gru": 1, "rnn": 1}


class RecurrentWeights(NamedTuple):
    """Weights of one layer; D is 2 (forward, backward) or 1. Gates in PyTorch's order: i f g o, or r z n."""

    input_kernel: jax.Array
    """[D, F, G*H] float."""
    hidden_kernel: jax.Array
    """[D, H, G*H] float."""
    input_bias: jax.Array
    """[D, G*H] float."""
    hidden_bias: jax.Array
    """[D, G*H] float."""


def recurrent(
    rnn_type: RnnType,
    inputs: jax.Array,
    lengths: jax.Array,
    weights: RecurrentWeights,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
    """Runs a layer in one or two directions; two are summed.

    The state is frozen on padding, so the backward direction starts at each row's own last frame.

    Args:
        rnn_type: the cell.
        inputs: [B, T', F] float; anything past `lengths`.
        lengths: [B] int32, valid frames.
        weights: of all directions.
        dtype: type in which the matrix products read; they add up, and the state stays, in at least float32.

    Returns:
        [B, T', H] float (at least float32), zeros past `lengths`.

    Source: torch.nn.LSTM, GRU and RNN over a packed sequence; Deep Speech 2 sums the directions.
    """
    mask = lengths_lib.mask_from_lengths(lengths, inputs.shape[1])
    inputs = jnp.where(mask[..., None], inputs, 0).swapaxes(0, 1)  # [T', B, F]
    mask = mask.T[..., None]  # [T', B, 1]
    total = jnp.zeros((), weights.input_bias.dtype)
    for direction in range(weights.input_kernel.shape[0]):
        input_kernel, hidden_kernel, input_bias, hidden_bias = (weight[direction] for weight in weights)
        gates = _product(inputs, input_kernel, dtype) + input_bias[None, None, :]  # one product for all frames
        hidden = _scan(rnn_type, direction == 1, dtype, gates, mask, hidden_kernel, hidden_bias)
        total = total + jnp.where(mask, hidden, 0)
    return total.swapaxes(0, 1)


def _product(left: jax.Array, right: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Product of two matrices read as `dtype`, added up in at least float32."""
    sums = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(left.astype(dtype), right.astype(dtype), preferred_element_type=sums)


def _cell(rnn_type: RnnType, from_input: jax.Array, from_hidden: jax.Array, state: State) -> State:
    """One step of a cell from its two gate pre-activations ([B, G*H] each); elementwise."""
    if rnn_type == "lstm":
        i, f, g, o = jnp.split(from_input + from_hidden, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
    if rnn_type == "gru":
        (r, z, n), (r_hidden, z_hidden, n_hidden) = (jnp.split(x, 3, axis=-1) for x in (from_input, from_hidden))
        update = jax.nn.sigmoid(z + z_hidden)
        candidate = jnp.tanh(n + jax.nn.sigmoid(r + r_hidden) * n_hidden)
        return ((1 - update) * candidate + update * state[0],)
    return (jnp.tanh(from_input + from_hidden),)


# Autodiff of the scan adds up the gradient of the recurrent kernel at every frame: T' small products, and with plain
# `jit` over several devices T' all-reduces. The rule below stacks the gates' gradients instead; one product follows.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(
    rnn_type: RnnType,
    reverse: bool,
    dtype: jax.typing.DTypeLike,
    gates: jax.Array,
    mask: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
) -> jax.Array:
    """Hidden states [T', B, H] of one direction, frozen on padding; gates [T', B, G*H], mask [T', B, 1]."""
    return _scan_forward(rnn_type, reverse, dtype, gates, mask, kernel, bias)[0]


def _scan_forward(
    rnn_type: RnnType,
    reverse: bool,
    dtype: jax.typing.DTypeLike,
    gates: jax.Array,
    mask: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
) -> tuple[jax.Array, Residuals]:
    kernel_read = kernel.astype(dtype)

    def step(state: State, inputs: tuple[jax.Array, jax.Array]) -> tuple[State, State]:
        from_input, valid = inputs
        from_hidden = _product(state[0], kernel_read, dtype) + bias[None, :]
        new = _cell(rnn_type, from_input, from_hidden, state)
        state = tuple(jnp.where(valid, n, s) for n, s in zip(new, state, strict=True))
        return state, state

    start = jnp.zeros((gates.shape[1], kernel.shape[0]), gates.dtype)
    _, states = jax.lax.scan(step, (start,) * NUM_STATES[rnn_type], (gates, mask), reverse=reverse)
    return states[0], (gates, mask, kernel, bias, states)


def _scan_backward(
    rnn_type: RnnType, reverse: bool, dtype: jax.typing.DTypeLike, residuals: Residuals, d_hidden: jax.Array
) -> tuple[jax.Array, None, jax.Array, jax.Array]:
    gates, mask, kernel, bias, states = residuals
    # The state each frame started from: the neighbour's, zeros at the first.
    pad, keep = ((0, 1), slice(1, None)) if reverse else ((1, 0), slice(None, -1))
    previous = tuple(jnp.pad(s[keep], (pad, (0, 0), (0, 0))) for s in states)
    from_hidden = _product(previous[0], kernel, dtype) + bias[None, None, :]
    kernel_read = kernel.T.astype(dtype)

    def step(d_state: State, inputs: tuple[Any, ...]) -> tuple[State, tuple[jax.Array, jax.Array]]:
        from_input, from_hidden, state, valid, d_output = inputs
        d_state = (d_state[0] + d_output, *d_state[1:])
        _, pullback = jax.vjp(functools.partial(_cell, rnn_type), from_input, from_hidden, state)
        d_from_input, d_from_hidden, d_previous = pullback(d_state)
        d_previous = (d_previous[0] + _product(d_from_hidden, kernel_read, dtype), *d_previous[1:])
        d_state = tuple(jnp.where(valid, d, s) for d, s in zip(d_previous, d_state, strict=True))
        return d_state, (jnp.where(valid, d_from_input, 0), jnp.where(valid, d_from_hidden, 0))

    zeros = tuple(jnp.zeros_like(s[0]) for s in states)
    inputs = (gates, from_hidden, previous, mask, d_hidden)
    _, (d_gates, d_from_hidden) = jax.lax.scan(step, zeros, inputs, reverse=not reverse)
    rows = (-1, kernel.shape[0]), (-1, kernel.shape[1])
    d_kernel = _product(previous[0].reshape(rows[0]).T, d_from_hidden.reshape(rows[1]), dtype)
    return d_gates, None, d_kernel.astype(kernel.dtype), d_from_hidden.sum((0, 1)).astype(bias.dtype)


_scan.defvjp(_scan_forward, _scan_backward)

"""Recurrent layers as array functions: LSTM, GRU and tanh cells over padded sequences, with a hand-written gradient.

Arrays inside this file are time-major ([T', B, ...]). `recurrent` takes and returns batch-major arrays.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ds2_jax.model.masks import mask_from_lengths

RnnType = Literal["lstm", "gru", "rnn"]
State = tuple[jax.Array, ...]  # hidden [B, H]; the LSTM appends cell [B, H]
DType = jax.typing.DTypeLike

NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
NUM_STATES = {"lstm": 2, "gru": 1, "rnn": 1}


class RecurrentWeights(NamedTuple):
    """Weights of one direction of a layer. Gates are in PyTorch's order: i f g o, or r z n.

    The forward pass reads every array in its memory order, without copies. If both directions shared one array, or if
    the array were stored transposed, XLA would copy it. For one 5 s utterance the copies took a seventh of the run time
    (five layers of 1024 units, two cores).
    """

    input_kernel: jax.Array
    """[F, G*H] float."""
    hidden_kernel: jax.Array
    """[G*H, H] float."""
    input_bias: jax.Array
    """[G*H] float."""
    hidden_bias: jax.Array
    """[G*H] float."""


Kept = tuple[jax.Array, jax.Array]
"""What the gradient needs from one direction.

These are the preactivations ([T', B, G*H], for the GRU [T', B, 4*H]) and the last component of the state
([T', B, H]): the LSTM's cell, otherwise the hidden state.
"""
Directions = tuple[RecurrentWeights, ...]
"""Weights of the forward direction, or of forward and backward."""
Residuals = tuple[jax.Array, jax.Array, Directions, list[Kept]]


def recurrent(
    rnn_type: RnnType,
    inputs: jax.Array,
    lengths: jax.Array,
    weights: Sequence[RecurrentWeights],
    dtype: DType = jnp.float32,
) -> jax.Array:
    """Runs a layer in one direction, or in two whose outputs are summed.

    The state does not change on padding, so the backward direction starts at each row's own last frame.

    Args:
        rnn_type: the cell.
        inputs: [B, T', F] float. Values past `lengths` are ignored.
        lengths: [B] int32, valid frames.
        weights: the weights of the forward direction, or of forward and backward.
        dtype: input type of the matrix products. Their sums and the state are at least float32.

    Returns:
        [B, T', H] float (at least float32), zeros past `lengths`.

    Source: torch.nn.LSTM, GRU and RNN over a packed sequence; Deep Speech 2 sums the directions.
    """
    mask = mask_from_lengths(lengths, inputs.shape[1])
    inputs = jnp.where(mask[..., None], inputs, 0).swapaxes(0, 1)  # [T', B, F]
    return _layer(rnn_type, dtype, inputs, mask.T[..., None], tuple(weights)).swapaxes(0, 1)


def recurrent_step(
    rnn_type: RnnType,
    inputs: jax.Array,
    mask: jax.Array,
    weights: RecurrentWeights,
    state: State,
    dtype: DType = jnp.float32,
) -> tuple[jax.Array, State]:
    """Runs the forward direction of a layer over the next frames of a stream.

    Args:
        rnn_type: the cell.
        inputs: [B, T', F] float. Values are ignored where `mask` is False.
        mask: [B, T'] bool, True = valid. The state does not change elsewhere.
        weights: the weights.
        state: [B, H] each, the state after the frames before.
        dtype: see `recurrent`.

    Returns:
        [B, T', H] float, zeros where `mask` is False, and the state after these frames.
    """
    inputs = jnp.where(mask[..., None], inputs, 0).swapaxes(0, 1)  # [T', B, F]
    valid = mask.T[..., None]
    _, states = _direction_forward(rnn_type, False, dtype, inputs, valid, weights, state)
    return jnp.where(valid, states[0], 0).swapaxes(0, 1), tuple(component[-1] for component in states)


def _product(left: jax.Array, right: jax.Array, dtype: DType) -> jax.Array:
    """Computes [..., M] @ [M, N] with inputs of type `dtype` and sums of at least float32."""
    sums = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(left.astype(dtype), right.astype(dtype), preferred_element_type=sums)


def _frame_product(rows: jax.Array, columns: jax.Array, dtype: DType) -> jax.Array:
    """Multiplies [B, M] by the transpose of [N, M] -> [B, N], for the few rows of one frame.

    XLA's product on a CPU is three times as fast when the large matrix is the left factor and its rows are contiguous:
    155 instead of 47 Gflop/s for B = 16, M = 1024, N = 4096 on two cores.
    """
    sums = jnp.promote_types(dtype, jnp.float32)
    last_axes = (((1,), (1,)), ((), ()))
    products = jax.lax.dot_general(columns.astype(dtype), rows.astype(dtype), last_axes, preferred_element_type=sums)
    return _transposed(products)


def _transposed(matrix: jax.Array) -> jax.Array:
    """Returns the transpose as a contiguous copy.

    Without the barriers XLA merges the transpose into the product, which on a CPU then reads the matrix by columns.
    """
    transposed: jax.Array = jax.lax.optimization_barrier(jax.lax.optimization_barrier(matrix).T)
    return transposed


def _weight_gradient(inputs: jax.Array, d_outputs: jax.Array, dtype: DType) -> jax.Array:
    """Sums the outer products of [T', B, M] and [T', B, N] over frames and rows -> [M, N].

    Copying the transpose raises the speed from 87 to 155 Gflop/s for M = 1312 and N = 8192.
    """
    by_unit = _transposed(inputs.astype(dtype).reshape(-1, inputs.shape[-1]))
    return _product(by_unit, d_outputs.reshape(-1, d_outputs.shape[-1]), dtype)


def _preactivations(rnn_type: RnnType, from_input: jax.Array, from_hidden: jax.Array) -> jax.Array:
    """Adds a cell's two products ([B, G*H] each). The GRU's n gate keeps its two parts apart."""
    if rnn_type != "gru":
        return from_input + from_hidden
    (r, z, n), (r_hidden, z_hidden, n_hidden) = (jnp.split(x, 3, axis=-1) for x in (from_input, from_hidden))
    return jnp.concatenate([r + r_hidden, z + z_hidden, n, n_hidden], axis=-1)


def _product_gradients(rnn_type: RnnType, d_preactivations: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the gradients of the two products that `_preactivations` adds."""
    if rnn_type != "gru":
        return d_preactivations, d_preactivations
    r, z, n, n_hidden = jnp.split(d_preactivations, 4, axis=-1)
    return jnp.concatenate([r, z, n], axis=-1), jnp.concatenate([r, z, n_hidden], axis=-1)


def _cell(rnn_type: RnnType, preactivations: jax.Array, state: State) -> State:
    """Computes one step of a cell, elementwise."""
    if rnn_type == "lstm":
        i, f, g, o = jnp.split(preactivations, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
    if rnn_type == "gru":
        r, z, n, n_hidden = jnp.split(preactivations, 4, axis=-1)
        update = jax.nn.sigmoid(z)
        return ((1 - update) * jnp.tanh(n + jax.nn.sigmoid(r) * n_hidden) + update * state[0],)
    return (jnp.tanh(preactivations),)


# Autodiff of the scan updates the gradient of the recurrent kernel with one small matrix product per frame. Plain `jit`
# over several devices adds one all-reduce per frame. The rule below stacks the gradients of the gates instead, and
# computes one product for each kernel. It stores the preactivations, so no product is computed twice.
#
# The barriers keep XLA from merging work of different layers, unless the compiler removes the barriers (see
# `compilation.compiler_options`). With barriers, XLA allocates a layer's temporary arrays when the layer runs, and
# frees them afterwards. This reduces the memory of a training step from 3.3 to 2.2 GiB (five layers of 1024 units).
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _layer(rnn_type: RnnType, dtype: DType, inputs: jax.Array, mask: jax.Array, weights: Directions) -> jax.Array:
    """Sums the directions' hidden states [T', B, H], zeros on padding. inputs: [T', B, F], mask: [T', B, 1]."""
    return _layer_forward(rnn_type, dtype, inputs, mask, weights)[0]


def _layer_forward(
    rnn_type: RnnType, dtype: DType, inputs: jax.Array, mask: jax.Array, weights: Directions
) -> tuple[jax.Array, Residuals]:
    inputs, mask, weights = jax.lax.optimization_barrier((inputs, mask, weights))
    total, kept = jnp.zeros((), weights[0].input_bias.dtype), []
    for direction, own in enumerate(weights):
        preactivations, states = _direction_forward(rnn_type, direction == 1, dtype, inputs, mask, own)
        total = total + jnp.where(mask, states[0], 0)
        kept.append((preactivations, states[-1]))
    # Without this barrier the next layer's gradient would store both directions and add them again.
    total = jax.lax.optimization_barrier(total)
    return total, (inputs, mask, weights, kept)


def _layer_backward(
    rnn_type: RnnType, dtype: DType, residuals: Residuals, d_hidden: jax.Array
) -> tuple[jax.Array, None, Directions]:
    (inputs, mask, weights, kept), d_hidden = jax.lax.optimization_barrier((residuals, d_hidden))
    d_hidden = jnp.where(mask, d_hidden, 0)
    d_inputs, d_weights = jnp.zeros((), d_hidden.dtype), []
    for direction, (own, kept_by_direction) in enumerate(zip(weights, kept, strict=True)):
        d_own_inputs, d_own = _direction_backward(
            rnn_type, direction == 1, dtype, inputs, mask, own, kept_by_direction, d_hidden
        )
        d_inputs = d_inputs + d_own_inputs
        d_weights.append(jax.tree.map(lambda weight, d: d.astype(weight.dtype), own, d_own))
    d_inputs, directions = jax.lax.optimization_barrier((d_inputs.astype(inputs.dtype), tuple(d_weights)))
    return d_inputs, None, directions


_layer.defvjp(_layer_forward, _layer_backward)


def _direction_forward(
    rnn_type: RnnType,
    reverse: bool,
    dtype: DType,
    inputs: jax.Array,
    mask: jax.Array,
    weights: RecurrentWeights,
    start: State | None = None,
) -> tuple[jax.Array, State]:
    """Computes the preactivations and states of each frame. The states do not change on padding; zeros come before."""
    # All frames at once.
    from_inputs = _product(inputs, weights.input_kernel, dtype) + weights.input_bias[None, None, :]
    hidden_kernel = weights.hidden_kernel.astype(dtype)

    def step(state: State, frame: tuple[jax.Array, jax.Array]) -> tuple[State, tuple[jax.Array, State]]:
        from_input, valid = frame
        from_hidden = _frame_product(state[0], hidden_kernel, dtype) + weights.hidden_bias[None, :]
        preactivations = _preactivations(rnn_type, from_input, from_hidden)
        new = _cell(rnn_type, preactivations, state)
        state = tuple(jnp.where(valid, n, s) for n, s in zip(new, state, strict=True))
        return state, (preactivations, state)

    if start is None:
        zeros = jnp.zeros((inputs.shape[1], weights.hidden_kernel.shape[1]), from_inputs.dtype)
        start = (zeros,) * NUM_STATES[rnn_type]
    stacks: tuple[jax.Array, State] = _scan(step, start, (from_inputs, mask), reverse)
    return stacks


def _direction_backward(
    rnn_type: RnnType,
    reverse: bool,
    dtype: DType,
    inputs: jax.Array,
    mask: jax.Array,
    weights: RecurrentWeights,
    kept: Kept,
    d_hidden: jax.Array,
) -> tuple[jax.Array, RecurrentWeights]:
    preactivations = kept[0]
    previous = _previous_states(rnn_type, reverse, mask, kept)
    columns = _transposed(weights.hidden_kernel.astype(dtype))

    def step(d_state: State, frame: tuple[jax.Array, State, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        preactivations, state, valid, d_output = frame
        d_state = (d_state[0] + d_output, *d_state[1:])
        _, pullback = jax.vjp(functools.partial(_cell, rnn_type), preactivations, state)
        d_preactivations, d_previous = pullback(d_state)
        _, d_from_hidden = _product_gradients(rnn_type, d_preactivations)
        d_previous = (d_previous[0] + _frame_product(d_from_hidden, columns, dtype), *d_previous[1:])
        d_state = tuple(jnp.where(valid, d, s) for d, s in zip(d_previous, d_state, strict=True))
        return d_state, jnp.where(valid, d_preactivations, 0)

    zeros = tuple(jnp.zeros_like(s[0]) for s in previous)
    d_preactivations: jax.Array = _scan(step, zeros, (preactivations, previous, mask, d_hidden), not reverse)

    d_from_inputs, d_from_hidden = _product_gradients(rnn_type, d_preactivations)
    d_weights = RecurrentWeights(
        input_kernel=_weight_gradient(inputs, d_from_inputs, dtype),
        hidden_kernel=_transposed(_weight_gradient(previous[0], d_from_hidden, dtype)),
        input_bias=d_from_inputs.sum((0, 1)),
        hidden_bias=d_from_hidden.sum((0, 1)),
    )
    return _product(d_from_inputs, weights.input_kernel.T, dtype), d_weights


def _previous_states(rnn_type: RnnType, reverse: bool, mask: jax.Array, kept: Kept) -> State:
    """Returns the states [T', B, H] before each frame; zeros before the first.

    The LSTM's hidden states are computed again from preactivations and cells. This is elementwise and saves a tenth of
    the memory.
    """
    preactivations, last_state = kept
    pad, keep = ((0, 1), slice(1, None)) if reverse else ((1, 0), slice(None, -1))

    def before(states: jax.Array) -> jax.Array:
        return jnp.pad(states[keep], (pad, (0, 0), (0, 0)))

    state = before(last_state)
    if rnn_type != "lstm":
        return (state,)
    hidden = jnp.where(mask, _cell(rnn_type, preactivations, (state, state))[0], 0)
    return before(hidden), state


def _scan(step: Callable[[State, Any], tuple[State, Any]], start: State, frames: Any, reverse: bool) -> Any:
    """Returns the stacked outputs of `jax.lax.scan(step, start, frames)`.

    `jax.lax.scan` copies its output buffers from one array of zeros, which stays in memory through all layers. So this
    function makes the buffers.
    """
    num_frames = jax.tree.leaves(frames)[0].shape[0]
    outputs = jax.eval_shape(step, start, jax.tree.map(lambda frame: frame[0], frames))[1]
    zeros = jax.tree.map(lambda output: jnp.zeros((), output.dtype), outputs)
    zeros, frames = jax.lax.optimization_barrier((zeros, frames))
    stacks = jax.tree.map(lambda zero, output: jnp.broadcast_to(zero, (num_frames, *output.shape)), zeros, outputs)

    def step_and_write(carry: tuple[State, Any], frame: tuple[jax.Array, Any]) -> tuple[tuple[State, Any], None]:
        (state, stacks), (index, frame) = carry, frame
        state, outputs = step(state, frame)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=index, axis=0)
        return (state, jax.tree.map(write, stacks, outputs)), None

    (_, stacks), _ = jax.lax.scan(step_and_write, (start, stacks), (jnp.arange(num_frames), frames), reverse=reverse)
    return stacks

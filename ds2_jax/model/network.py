"""Flax modules: MaskedConv, MaskedBatchNorm, BatchRNN, Lookahead, DeepSpeech2."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ds2_jax.config import ModelConfig
from ds2_jax.config.frames import conv_output_lengths
from ds2_jax.model.conv import strided_conv
from ds2_jax.model.masks import mask_from_lengths
from ds2_jax.model.recurrent import NUM_GATES, RecurrentWeights, RnnType, recurrent

OF_ALL_DEVICES = "of_all_devices"
"""Checkpoint name of the sums over all devices."""


def uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Returns an initialiser that draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Source: PyTorch's convolution, linear and recurrent layers.
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: Sequence[int], dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def clipped_relu(x: jax.Array) -> jax.Array:
    """Clips to [0, 20], like Deep Speech 2's Hardtanh. NaN stays NaN. As in PyTorch, the gradient at both ends is 0."""
    return jnp.where(x <= 0, 0, jnp.where(x >= 20, 20, x))


class MaskedConv(nn.Module):
    """Strided convolution that reads valid frames only.

    Attributes:
        channels: number of output channels.
        taps: kernel size over time and frequency.
        strides: strides over time and frequency.
        dtype: type to which the inputs of the matrix products are converted.
    """

    channels: int
    taps: tuple[int, int]
    strides: tuple[int, int]
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, mask: jax.Array) -> jax.Array:
        """Convolves.

        Args:
            inputs: [B, T, F, C] float. Values are ignored where `mask` is False.
            mask: [B, T] bool, True = valid.

        Returns:
            [B, T', F', C'] float. Frames past the valid ones have arbitrary values, which the next mask removes.
        """
        fan_in = math.prod(self.taps) * inputs.shape[-1]
        kernel = self.param("kernel", uniform(fan_in), (*self.taps, inputs.shape[-1], self.channels))
        bias = self.param("bias", uniform(fan_in), (self.channels,))
        inputs = jnp.where(mask[..., None, None], inputs, 0)
        outputs = strided_conv(inputs.astype(self.dtype), kernel.astype(self.dtype), self.strides)
        return outputs.astype(jnp.promote_types(self.dtype, jnp.float32)) + bias[None, None, None, :]


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over the valid frames of all devices.

    Differs: deepspeech.pytorch counts padded zeros in its statistics. Flax's own `mask` and `axis_name` average the
        means of the devices, which is wrong if their numbers of frames differ.

    Attributes:
        axis_name: name of the device axis over which statistics are shared; None on one device.
        momentum: share of the old running statistics in the new ones. 0.9 corresponds to PyTorch's momentum of 0.1.
        epsilon: added to the variance.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, inputs: jax.Array, mask: jax.Array, training: bool) -> jax.Array:
        """Normalises each channel.

        Args:
            inputs: [B, T, ..., C] float. Values are ignored where `mask` is False.
            mask: [B, T] bool, True = valid.
            training: whether to normalise with the batch's statistics and update the running ones. The running variance
                is unbiased, as in PyTorch.

        Returns:
            [B, T, ..., C] float, zeros where `mask` is False.
        """
        channels = inputs.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mask = mask.reshape(*mask.shape, *(1,) * (inputs.ndim - 2))
        per_channel = functools.partial(jnp.expand_dims, axis=tuple(range(inputs.ndim - 1)))
        if training:
            axes = tuple(range(inputs.ndim - 1))
            frames = self._all_devices(mask.sum(dtype=inputs.dtype)) * math.prod(inputs.shape[2:-1])
            count = jnp.maximum(frames, 1)
            mean = self._all_devices(jnp.where(mask, inputs, 0).sum(axes)) / count
            centred = jnp.where(mask, inputs - per_channel(mean), 0)
            var = self._all_devices(jnp.square(centred).sum(axes)) / count  # a second pass avoids cancellation
            if not self.is_initializing():
                kept = jnp.where(frames > 0, self.momentum, 1)  # a batch of empty rows changes nothing
                new = 1 - kept
                running_mean.value = kept * running_mean.value + new * mean
                running_var.value = kept * running_var.value + new * var * count / jnp.maximum(count - 1, 1)
        else:
            mean, var = running_mean.value, running_var.value
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        outputs = (inputs - per_channel(mean)) * per_channel(factor) + per_channel(bias)
        return jnp.where(mask, outputs, 0)

    def _all_devices(self, x: jax.Array) -> jax.Array:
        if self.axis_name is None or self.is_initializing():
            return x
        summed: jax.Array = checkpoint_name(jax.lax.psum(x, self.axis_name), OF_ALL_DEVICES)
        return summed


class BatchRNN(nn.Module):
    """A recurrent layer, with batch normalisation of its inputs if `normalise` is set.

    Attributes:
        rnn_type: the cell: lstm, gru or rnn.
        hidden_size: number of hidden units (H).
        num_directions: 1, or 2 whose outputs are summed.
        normalise: whether to normalise the inputs first. The first layer does not.
        dtype: type to which the inputs of the matrix products are converted.
        axis_name: name of the device axis over which batch statistics are shared; None on one device.
    """

    rnn_type: RnnType
    hidden_size: int
    num_directions: int
    normalise: bool
    dtype: jax.typing.DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array, lengths: jax.Array, training: bool) -> jax.Array:
        """Runs the layer.

        Args:
            inputs: [B, T', F] float. Values past `lengths` are ignored.
            lengths: [B] int32, valid frames.
            training: whether to normalise with the batch's statistics.

        Returns:
            [B, T', H] float, zeros past `lengths`.
        """
        if self.normalise:
            mask = mask_from_lengths(lengths, inputs.shape[1])
            inputs = MaskedBatchNorm(self.axis_name, name="norm")(inputs, mask, training)
        num_outputs = NUM_GATES[self.rnn_type] * self.hidden_size
        weights = zip(
            self.param("input_kernel", self._draw, inputs.shape[-1], num_outputs),
            self.param("hidden_kernel", lambda key: tuple(k.T for k in self._draw(key, self.hidden_size, num_outputs))),
            self.param("input_bias", self._draw, num_outputs),
            self.param("hidden_bias", self._draw, num_outputs),
            strict=True,
        )
        return recurrent(self.rnn_type, inputs, lengths, [RecurrentWeights(*own) for own in weights], self.dtype)

    def _draw(self, key: jax.Array, *shape: int) -> tuple[jax.Array, ...]:
        """Draws one array for each direction from one key."""
        return tuple(uniform(self.hidden_size)(key, (self.num_directions, *shape)))


RematerialisedRNN = nn.remat(
    BatchRNN, static_argnums=(3,), policy=jax.checkpoint_policies.save_only_these_names(OF_ALL_DEVICES)
)
"""A BatchRNN that stores only its inputs and the sums over all devices for the gradient, and recomputes the rest."""


class Lookahead(nn.Module):
    """Sums each unit's next `context` frames, including the current one, with learned weights.

    Source: Wang et al. 2016.

    Attributes:
        context: number of output frames in the sum.
    """

    context: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Runs the layer on [B, T', H] float, zeros on padding -> [B, T', H] float."""
        num_frames = inputs.shape[1]
        kernel = self.param("kernel", uniform(self.context), (self.context, inputs.shape[-1]))
        padded = jnp.pad(inputs, ((0, 0), (0, self.context - 1), (0, 0)))
        shifted = [padded[:, k : k + num_frames] * kernel[k][None, None, :] for k in range(self.context)]
        return sum(shifted[1:], start=shifted[0])


class DeepSpeech2(nn.Module):
    """Deep Speech 2: two convolutions, recurrent layers, and a dense layer that gives CTC logits.

    Source: Amodei et al. 2016; deepspeech.pytorch `DeepSpeech`.
    Differs: batch statistics exclude padding (MaskedBatchNorm). The features of a frame are in frequency-major order.

    Attributes:
        config: the model's sizes.
        num_labels: number of labels, blank included (V).
        axis_name: name of the device axis over which batch statistics are shared; None on one device.
        dtype: overrides `config.dtype` (float64 in tests).
        rematerialise: whether the gradient computes the recurrent layers' intermediate values again, which saves
            memory.
    """

    config: ModelConfig
    num_labels: int
    axis_name: str | None = None
    dtype: jax.typing.DTypeLike | None = None
    rematerialise: bool = False

    @nn.compact
    def __call__(
        self,
        spectrograms: jax.Array,
        num_frames: jax.Array,
        training: bool = False,
        row_keys: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Computes the logits.

        Args:
            spectrograms: [B, T, F] float, normalised log spectrograms. Values past `num_frames` are ignored.
            num_frames: [B] int32, valid frames.
            training: whether to use the batch's statistics and dropout.
            row_keys: [B] random keys for dropout. Training needs them if `config.dropout` is positive.

        Returns:
            logits: [B, T', V] float (at least float32), unnormalised; T' = ceil(T / time_reduction).
            output_lengths: [B] int32, valid output frames.
        """
        config, axis = self.config, self.axis_name
        dtype = jnp.dtype(self.dtype or config.dtype)
        hidden = spectrograms[..., None]  # [B, T, F, 1]
        lengths = num_frames
        for i in range(2):
            mask = mask_from_lengths(lengths, hidden.shape[1])
            taps = (config.time_kernels[i], config.frequency_kernels[i])
            strides = (config.time_strides[i], config.frequency_strides[i])
            hidden = MaskedConv(config.channels[i], taps, strides, dtype, name=f"conv_{i}")(hidden, mask)
            lengths = conv_output_lengths(lengths, strides[0])
            mask = mask_from_lengths(lengths, hidden.shape[1])
            hidden = clipped_relu(MaskedBatchNorm(axis, name=f"conv_norm_{i}")(hidden, mask, training))
        hidden = hidden.reshape(*hidden.shape[:2], -1)  # [B, T', F'*C]

        recurrent_layer = RematerialisedRNN if self.rematerialise and training else BatchRNN
        for i in range(config.num_layers):
            if i > 0 and training and config.dropout > 0:
                hidden = dropout(hidden, row_keys, i, config.dropout)
            directions = 2 if config.bidirectional else 1
            layer = recurrent_layer(
                config.rnn_type, config.hidden_size, directions, i > 0, dtype, axis, name=f"rnn_{i}"
            )
            hidden = layer(hidden, lengths, training)
        if not config.bidirectional:
            hidden = clipped_relu(Lookahead(config.lookahead_context, name="lookahead")(hidden))

        hidden = MaskedBatchNorm(axis, name="head_norm")(hidden, mask, training)
        kernel = self.param("head", uniform(config.hidden_size), (config.hidden_size, self.num_labels))
        return jnp.matmul(hidden, kernel), lengths


def dropout(inputs: jax.Array, row_keys: jax.Array | None, layer: int, rate: float) -> jax.Array:
    """Sets a share `rate` of [B, T', H] to 0 and scales the rest up.

    The draw depends on the row's key and the layer, never on padding: JAX's partitionable generator draws the same
    first frames for every T', so a longer bucket changes nothing.
    """
    if row_keys is None:
        raise ValueError("row_keys must be given in training with dropout, got None. Pass spec_augment.row_keys(...).")
    layer_keys = jax.vmap(lambda key: jax.random.fold_in(key, 16 + layer))(row_keys)  # below 16: SpecAugment
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, inputs.shape[1:]))(layer_keys)
    return jnp.where(kept, inputs / (1 - rate), 0)

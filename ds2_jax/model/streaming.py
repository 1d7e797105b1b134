"""Runs the model on streams of samples, a fixed number of frames at a time, with the results of whole recordings.

A step takes the next samples of each stream and gives the next output frames. Each stage keeps the end of its input,
so that it can go on, and has a delay: it gives a frame as soon as all that the frame depends on is known. A frame
before the start of a recording, or behind its end, is zero at every stage, as in whole recordings.

Streaming needs a model that runs forward only, and a normalisation that needs no future.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.config.live import delays
from ds2_jax.model import features
from ds2_jax.model.conv import strided_conv
from ds2_jax.model.features import RunningSums
from ds2_jax.model.inference import statistics_of
from ds2_jax.model.network import clipped_relu
from ds2_jax.model.recurrent import NUM_STATES, RecurrentWeights, recurrent_step

EPSILON = 1e-5  # of MaskedBatchNorm
MORE = 2**30
"""Number of frames of a recording whose end is not known."""


class StreamState(NamedTuple):
    """What a step must know of the samples before it, for B streams.

    Attributes:
        steps: [B] int32, steps since the start of the recording.
        samples: [B, ...] float, the last samples.
        sums: the sums of running normalisation, which go on from one recording of a stream to the next.
        convs: [B, context, F, C] float, the last inputs of each convolution.
        hidden: for each recurrent layer its state, [B, H] each.
        outputs: [B, context - 1, H] float, the last inputs of the lookahead convolution.
    """

    steps: jax.Array
    samples: jax.Array
    sums: RunningSums
    convs: tuple[jax.Array, jax.Array]
    hidden: tuple[tuple[jax.Array, ...], ...]
    outputs: jax.Array


def start(config: Config, num_rows: int, dtype: jax.typing.DTypeLike = jnp.float32) -> StreamState:
    """Makes the state before the first sample of `num_rows` streams."""
    model, places = config.model, delays(config, 1)
    bins, channels = config.features.num_bins, (1, model.channels[0])
    convs = []
    for context, in_channels, stride in zip(places.contexts, channels, model.frequency_strides, strict=True):
        convs.append(jnp.zeros((num_rows, context, bins, in_channels), dtype))
        bins = -(-bins // stride)
    hidden = jnp.zeros((num_rows, model.hidden_size), dtype)
    left = config.features.window_length // 2 + places.spectrogram * config.features.hop_length
    return StreamState(
        jnp.zeros(num_rows, jnp.int32),
        jnp.zeros((num_rows, left), dtype),
        RunningSums.zeros(num_rows, config.features.num_bins, dtype),
        (convs[0], convs[1]),
        tuple((hidden,) * NUM_STATES[model.rnn_type] for _ in range(model.num_layers)),
        jnp.zeros((num_rows, model.lookahead_context - 1, model.hidden_size), dtype),
    )


def step(
    variables: dict[str, Any], state: StreamState, samples: jax.Array, num_samples: jax.Array, *, config: Config
) -> tuple[StreamState, jax.Array]:
    """Runs the model on the next samples of B streams. No stream affects another.

    After the end of a recording, steps without samples give its last frames.

    Args:
        variables: params and batch_stats of a model that can stream.
        state: the state before these samples.
        samples: [B, S] float, S a multiple of the samples of an output frame; zeros behind the end of a recording.
        num_samples: [B] int32, the samples of the whole recording; negative while its end is not known.
        config: the run's configuration.

    Returns:
        The state after these samples, and [B, T', V] float, log-probabilities of T' = S / samples of a frame output
        frames. The first is frame `steps * T' - delay`; those before frame 0 and behind the last one mean nothing.
    """
    params, stats, model = variables["params"], variables["batch_stats"], config.model
    hop = config.features.hop_length
    num_frames_in_step = samples.shape[1] // hop
    places = delays(config, num_frames_in_step // model.time_reduction)
    length = jnp.where(num_samples < 0, MORE, count_frames(num_samples, hop))

    # Spectrogram.
    window = jnp.concatenate([state.samples, samples], axis=1)
    size = config.features.window_length
    needed = (num_frames_in_step - 1 + -(-size // hop)) * hop
    padded = jnp.pad(window, ((0, 0), (0, max(0, needed - window.shape[1]))))[:, :needed]
    spectrograms = features.spectra(padded, config.features)  # [B, K, F]
    kept_samples = window[:, window.shape[1] - state.samples.shape[1] :]
    mask = _valid(state.steps, num_frames_in_step, places.spectrogram, length)
    statistics = statistics_of(stats)
    assert statistics is not None
    sums = state.sums
    if config.features.normalisation == "running":
        normalised, sums = features.normalise_running(spectrograms, mask, statistics, sums, config.features)
    else:
        normalised = features.normalise_global(spectrograms, mask, statistics)

    # Convolutions.
    hidden = normalised[..., None]  # [B, K, F, 1]
    convs = []
    dtype = jnp.dtype(model.dtype)
    for i, (context, stride) in enumerate(zip(state.convs, model.time_strides, strict=True)):
        inputs = jnp.concatenate([context, hidden], axis=1)
        convs.append(inputs[:, inputs.shape[1] - context.shape[1] :])
        own = params[f"conv_{i}"]
        num_outputs = hidden.shape[1] // stride
        inputs = inputs[:, : (num_outputs - 1) * stride + own["kernel"].shape[0]]
        strides = (stride, model.frequency_strides[i])
        outputs = strided_conv(inputs.astype(dtype), own["kernel"].astype(dtype), strides, pad_time=False)
        outputs = outputs.astype(jnp.promote_types(dtype, inputs.dtype)) + own["bias"][None, None, None, :]
        length = conv_output_lengths(length, stride)
        mask = _valid(state.steps, num_outputs, places.convs[i], length)
        normalised = _batch_norm(outputs, params[f"conv_norm_{i}"], stats[f"conv_norm_{i}"])
        hidden = jnp.where(mask[..., None, None], clipped_relu(normalised), 0)
    hidden = hidden.reshape(*hidden.shape[:2], -1)  # [B, T', F'*C]

    # Recurrent layers.
    states = []
    for i, before in enumerate(state.hidden):
        own = params[f"rnn_{i}"]
        if i > 0:
            hidden = _batch_norm(hidden, own["norm"], stats[f"rnn_{i}"]["norm"])
        weights = RecurrentWeights(
            *(own[name][0] for name in ("input_kernel", "hidden_kernel", "input_bias", "hidden_bias"))
        )
        hidden, after = recurrent_step(model.rnn_type, hidden, mask, weights, before, dtype)
        states.append(after)

    # Lookahead and head.
    inputs = jnp.concatenate([state.outputs, hidden], axis=1)
    num_outputs, kernel = hidden.shape[1], params["lookahead"]["kernel"]
    shifted = [inputs[:, k : k + num_outputs] * kernel[k][None, None, :] for k in range(len(kernel))]
    hidden = clipped_relu(sum(shifted[1:], start=shifted[0]))
    logits = jnp.matmul(_batch_norm(hidden, params["head_norm"], stats["head_norm"]), params["head"])
    kept_outputs = inputs[:, inputs.shape[1] - state.outputs.shape[1] :]
    after_all = StreamState(state.steps + 1, kept_samples, sums, (convs[0], convs[1]), tuple(states), kept_outputs)
    return after_all, jax.nn.log_softmax(logits)


def _valid(steps: jax.Array, num_frames: int, delay: int, lengths: jax.Array) -> jax.Array:
    """Marks the frames of a step that lie in the recording: [B, num_frames] bool."""
    index = steps[:, None] * num_frames - delay + jnp.arange(num_frames)[None, :]
    return (index >= 0) & (index < lengths[:, None])


def _batch_norm(inputs: jax.Array, params: dict[str, jax.Array], stats: dict[str, jax.Array]) -> jax.Array:
    """Normalises each channel of [B, T, ..., C] by the running statistics."""
    shape = (1,) * (inputs.ndim - 1) + (-1,)
    factor = jax.lax.rsqrt(stats["var"] + EPSILON) * params["scale"]
    return (inputs - stats["mean"].reshape(shape)) * factor.reshape(shape) + params["bias"].reshape(shape)

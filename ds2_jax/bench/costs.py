"""Formulas: parameters and floating-point operations of a model and batch, exponents of growth, costs of an epoch."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.data.plan import Batch
from ds2_jax.model.recurrent import NUM_GATES

TRAINING_FACTOR = 3
"""Products of a training step over those of forward: each product has two gradients of its own cost."""


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A product: `inputs` x `outputs` multiply-adds at each of `positions` places of an output frame."""

    inputs: int
    outputs: int
    positions: int = 1


def num_parameters(config: Config, num_labels: int) -> int:
    """Weights, biases and batch norm's scales of `model.DeepSpeech2`."""
    model = config.model
    directions = 1 + model.bidirectional
    count = sum(layer.inputs * layer.outputs for _, layer in _layers(config, num_labels))
    biases = 2 * NUM_GATES[model.rnn_type] * model.hidden_size * directions * model.num_layers
    norms = 2 * (sum(model.channels) + model.num_layers * model.hidden_size)
    lookahead = 0 if model.bidirectional else model.lookahead_context * model.hidden_size
    return count + sum(model.channels) + biases + norms + lookahead


def forward_flops(config: Config, num_labels: int, num_frames: Sequence[int] | np.ndarray) -> float:
    """Floating-point operations of one forward pass: two for each multiply-add of the products.

    Counted are the convolutions (F' C' taps C at each output frame), the recurrent layers' products with their inputs
    (G H F) and states (G H H) in each direction, and the head (H V). Features, batch norm, gates, CTC and the update of
    the weights are left out: less than 1 % of a 5 x 1024 step.

    Args:
        config: sizes.
        num_labels: labels with blank (V).
        num_frames: [B] int, frames (T) counted in each row: the valid ones for the work that is of use, the padded ones
            for the work that is done.
    """
    frames = np.asarray(num_frames, np.int64)
    total = 0
    for reduction, layer in _layers(config, num_labels):
        output_frames = int(conv_output_lengths(frames, reduction).sum())
        total += 2 * layer.inputs * layer.outputs * layer.positions * output_frames
    return float(total)


def train_flops(config: Config, num_labels: int, num_frames: Sequence[int] | np.ndarray) -> float:
    """Of one training step: `TRAINING_FACTOR` times `forward_flops`."""
    return TRAINING_FACTOR * forward_flops(config, num_labels, num_frames)


def _layers(config: Config, num_labels: int) -> Iterator[tuple[int, _Layer]]:
    """Every product, with the input frames for one of its output frames."""
    model = config.model
    bins, channels, reduction = config.features.num_bins, 1, 1
    for layer in range(2):
        bins = -(-bins // model.frequency_strides[layer])
        reduction *= model.time_strides[layer]
        taps = model.time_kernels[layer] * model.frequency_kernels[layer]
        yield reduction, _Layer(taps * channels, model.channels[layer], bins)
        channels = model.channels[layer]
    width = bins * channels
    for _ in range(model.num_layers):
        for _ in range(1 + model.bidirectional):
            yield reduction, _Layer(width + model.hidden_size, NUM_GATES[model.rnn_type] * model.hidden_size)
        width = model.hidden_size
    yield reduction, _Layer(model.hidden_size, num_labels)


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The k of values ~ sizes^k that fits best: the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch of training costs, by its plan and the formula above.

    Attributes:
        num_utterances: planned.
        hours: of audio.
        num_steps: batches.
        num_shapes: programs to compile.
        padding: share of the frames computed that hold no audio.
        flops: of all steps, padding included.
        largest_batch: its rows and frames, where rows times frames is largest.
    """

    num_utterances: int
    hours: float
    num_steps: int
    num_shapes: int
    padding: float
    flops: float
    largest_batch: tuple[int, int]


def cost_of_epoch(plan: Sequence[Batch], num_samples: np.ndarray, config: Config, num_labels: int) -> Epoch:
    """Adds up the batches of a plan; `num_samples` [U] are those of the utterances that it points to."""
    hop = config.features.hop_length
    shapes = np.array([(len(batch.indices), count_frames(batch.padded_samples, hop)) for batch in plan])
    distinct, counts = np.unique(shapes, axis=0, return_counts=True)
    flops = sum(
        count * train_flops(config, num_labels, np.full(rows, frames))
        for (rows, frames), count in zip(distinct.tolist(), counts.tolist(), strict=True)
    )
    rows, frames = max(distinct.tolist(), key=lambda shape: shape[0] * shape[1])
    return Epoch(
        num_utterances=len(num_samples),
        hours=float(num_samples.sum()) / config.features.sample_rate / 3600,
        num_steps=len(plan),
        num_shapes=len(distinct),
        padding=1 - float(count_frames(num_samples, hop).sum()) / float(shapes.prod(1).sum()),
        flops=float(flops),
        largest_batch=(rows, frames),
    )


LIBRISPEECH_UTTERANCES = 281_241
"""In train-clean-100, train-clean-360 and train-other-500 together: 961 hours, 12.3 s on average."""


def librispeech_durations(count: int = LIBRISPEECH_UTTERANCES) -> np.ndarray:
    """An ASSUMED shape of the durations of LibriSpeech's training utterances, whose list is not at hand.

    Three of four follow a triangle from 10 over 15.5 to 17 s, the others are spread evenly over 1.5 to 12 s: the corpus
    was cut at silences into pieces of at most about 16 s. The mean, 12.3 s, is the corpus's; nothing is drawn.

    Args:
        count: utterances.

    Returns:
        [count] float64, seconds, rising.
    """
    num_long = round(0.75 * count)
    low, mode, high = 10.0, 15.5, 17.0
    quantiles = (np.arange(num_long) + 0.5) / num_long
    rising = low + np.sqrt(quantiles * (high - low) * (mode - low))
    falling = high - np.sqrt((1 - quantiles) * (high - low) * (high - mode))
    long = np.where(quantiles < (mode - low) / (high - low), rising, falling)
    short = 1.5 + 10.5 * (np.arange(count - num_long) + 0.5) / max(count - num_long, 1)
    return np.sort(np.concatenate([long, short]))

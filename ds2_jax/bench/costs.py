"""Counts a model's parameters and floating-point operations, fits exponents of growth, and predicts an epoch's cost."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.data.plan import PlannedBatch
from ds2_jax.model.inference import init_variables
from ds2_jax.model.recurrent import NUM_GATES

TRAINING_FACTOR = 3
"""Operations of a training step divided by those of a forward pass. Each product has two gradients of the same cost."""


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A product: `inputs` x `outputs` multiply-adds at each of `positions` positions of an output frame."""

    inputs: int
    outputs: int
    positions: int = 1


def num_parameters(config: Config, num_labels: int) -> int:
    """Counts the weights of `model.DeepSpeech2` without creating them."""
    variables = jax.eval_shape(lambda: init_variables(config, num_labels))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def forward_flops(config: Config, num_labels: int, num_frames: Sequence[int] | np.ndarray) -> float:
    """Counts the floating-point operations of one forward pass: two for each multiply-add of the products.

    The products at each output frame are the convolutions (F' C' taps C), the products of the recurrent layers with
    inputs (G H F) and states (G H H) in each direction, and the head (H V). Features, batch norm, gates, CTC and the
    update of the weights are not counted. They are less than 1 % of a 5 x 1024 step.

    Args:
        config: the configuration with the model's sizes.
        num_labels: number of labels, blank included (V).
        num_frames: [B] int, frames (T) to count in each row. Give valid frames to count the useful work, or padded
            frames to count the work that is done.
    """
    frames = np.asarray(num_frames, np.int64)
    total = 0
    for reduction, layer in _layers(config, num_labels):
        output_frames = int(conv_output_lengths(frames, reduction).sum())
        total += 2 * layer.inputs * layer.outputs * layer.positions * output_frames
    return float(total)


def train_flops(config: Config, num_labels: int, num_frames: Sequence[int] | np.ndarray) -> float:
    """Counts the floating-point operations of one training step: `TRAINING_FACTOR` times `forward_flops`."""
    return TRAINING_FACTOR * forward_flops(config, num_labels, num_frames)


def _layers(config: Config, num_labels: int) -> Iterator[tuple[int, _Layer]]:
    """Yields each product, with the number of input frames for one of its output frames."""
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
    """Fits k in values ~ sizes^k: the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The cost of an epoch of training, from its plan and `train_flops`.

    Attributes:
        num_utterances: number of planned utterances.
        hours: hours of audio.
        num_steps: number of batches.
        num_shapes: number of programs to compile.
        padding: share of the computed frames that are padding or lie in empty rows.
        flops: operations of all steps, including padding.
        largest_batch: rows and frames of the batch with the largest product of both.
    """

    num_utterances: int
    hours: float
    num_steps: int
    num_shapes: int
    padding: float
    flops: float
    largest_batch: tuple[int, int]


def cost_of_epoch(plan: Sequence[PlannedBatch], num_samples: np.ndarray, config: Config, num_labels: int) -> Epoch:
    """Adds up the costs of a plan's batches. `num_samples` [U] are the lengths of the utterances in the plan."""
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
"""Utterances of train-clean-100, train-clean-360 and train-other-500 together: 961 hours, 12.3 s on average."""


def librispeech_durations(count: int = LIBRISPEECH_UTTERANCES) -> np.ndarray:
    """Assumes durations for LibriSpeech's training utterances, because their list is not available here.

    Three of four follow a triangular density from 10 to 17 s with its mode at 15.5 s, because the corpus was cut at
    silences into pieces of at most about 16 s. The others are spread evenly over 1.5 to 12 s. The mean is 12.3 s, as in
    the corpus. Nothing is random.

    Args:
        count: number of utterances.

    Returns:
        [count] float64, seconds, in ascending order.
    """
    num_long = round(0.75 * count)
    low, mode, high = 10.0, 15.5, 17.0
    quantiles = (np.arange(num_long) + 0.5) / num_long
    rising = low + np.sqrt(quantiles * (high - low) * (mode - low))
    falling = high - np.sqrt((1 - quantiles) * (high - low) * (high - mode))
    long = np.where(quantiles < (mode - low) / (high - low), rising, falling)
    short = 1.5 + 10.5 * (np.arange(count - num_long) + 0.5) / max(count - num_long, 1)
    return np.sort(np.concatenate([long, short]))

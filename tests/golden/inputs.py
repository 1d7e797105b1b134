"""Weights and inputs of the golden tests. They are drawn from seeds, so that only PyTorch's outputs are stored.

make_golden.py (PyTorch) and test_golden.py (JAX) share this module, so it uses only NumPy. Weights have PyTorch's names
and layouts; `recurrent_to_ours` and `model_to_ours` convert them, or their gradients, to ours.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from ds2_jax.config import ModelConfig

Weights = dict[str, np.ndarray]

NUM_BINS = 161
NUM_LABELS = 29
NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclasses.dataclass(frozen=True)
class RecurrentCase:
    """A recurrent layer and its batch; `lengths` has one entry per row."""

    rnn_type: Literal["lstm", "gru", "rnn"]
    bidirectional: bool
    num_inputs: int
    hidden_size: int
    num_frames: int
    lengths: tuple[int, ...]


RECURRENT_CASES = {
    "bidirectional_lstm": RecurrentCase("lstm", True, 6, 5, 9, (4, 9, 1, 7)),
    "bidirectional_gru": RecurrentCase("gru", True, 6, 5, 9, (4, 9, 1, 7)),
    "bidirectional_rnn": RecurrentCase("rnn", True, 6, 5, 9, (4, 9, 1, 7)),
    "unidirectional_lstm": RecurrentCase("lstm", False, 6, 5, 9, (4, 9, 1, 7)),
    "full_size_lstm": RecurrentCase("lstm", True, 1312, 1024, 4, (4, 3)),
}


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A whole model. In training no row is padded, because the source's batch norm would count the padding."""

    config: ModelConfig
    num_frames: int
    num_frames_of_rows: tuple[int, ...]
    train: bool = False
    labels_of_rows: tuple[tuple[int, ...], ...] = ()
    conv_norm_scale: float = 1.0


_SMALL = ModelConfig(hidden_size=8, num_layers=3, channels=(4, 3))
_SMALLEST = dataclasses.replace(_SMALL, hidden_size=4, num_layers=2, channels=(2, 2))
_FRONT_END = dataclasses.replace(_SMALL, hidden_size=1, num_layers=1)

FRONT_END_CASES = {  # the scale before the clipped ReLU is large, so that both clips occur
    "eval": ModelCase(_FRONT_END, 23, (15, 23, 6), conv_norm_scale=10.0),
    "train": ModelCase(_FRONT_END, 17, (17, 17), train=True, conv_norm_scale=10.0),
    "time_reduction_4": ModelCase(
        dataclasses.replace(_FRONT_END, time_reduction=4), 23, (15, 23, 6), conv_norm_scale=10.0
    ),
}
MODEL_CASES = {
    "bidirectional_lstm": ModelCase(_SMALL, 61, (40, 61, 17)),
    "unidirectional_gru": ModelCase(dataclasses.replace(_SMALL, rnn_type="gru", bidirectional=False), 61, (40, 61, 17)),
    "train": ModelCase(_SMALLEST, 40, (40, 40), train=True, labels_of_rows=((3, 3, 28, 1, 7), (12, 9))),
}
LOOKAHEAD_LENGTHS = (14, 30, 3)


def _bits(name: str) -> np.random.PCG64:
    # NumPy guarantees the streams of its bit generators, but not those of its distributions.
    return np.random.PCG64(list(name.encode()))


def _uniform(bits: np.random.PCG64, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    unit = (bits.random_raw(math.prod(shape)) >> np.uint64(40)) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)


def _labels(bits: np.random.PCG64, num_labels: int, largest: int) -> list[int]:
    return [1 + int(value) % largest for value in bits.random_raw(num_labels)]


def _symmetric(bits: np.random.PCG64, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    return _uniform(bits, shape, -(fan_in**-0.5), fan_in**-0.5)


def masked(values: np.ndarray, lengths: tuple[int, ...]) -> np.ndarray:
    """Sets [B, T, ...] to zero from the length of each row on."""
    valid = np.arange(values.shape[1]) < np.array(lengths)[:, None]
    return np.where(valid.reshape(valid.shape + (1,) * (values.ndim - 2)), values, np.float32(0))


def _recurrent_weights(
    bits: np.random.PCG64, rnn_type: str, bidirectional: bool, num_inputs: int, hidden_size: int
) -> Weights:
    gates = NUM_GATES[rnn_type] * hidden_size
    weights = {}
    for suffix in ("", "_reverse")[: 1 + bidirectional]:
        weights[f"weight_ih_l0{suffix}"] = _symmetric(bits, (gates, num_inputs), num_inputs)
        weights[f"weight_hh_l0{suffix}"] = _symmetric(bits, (gates, hidden_size), hidden_size)
        weights[f"bias_ih_l0{suffix}"] = _symmetric(bits, (gates,), hidden_size)
        weights[f"bias_hh_l0{suffix}"] = _symmetric(bits, (gates,), hidden_size)
    return weights


def recurrent_inputs(name: str) -> tuple[np.ndarray, Weights, np.ndarray]:
    """Draws inputs [B, T, F] with zero padding, the layer's weights, and cotangents [B, T, H] of its outputs."""
    case = RECURRENT_CASES[name]
    bits = _bits(f"recurrent {name}")
    inputs = _uniform(bits, (len(case.lengths), case.num_frames, case.num_inputs), -1.7, 1.7)
    cotangents = _uniform(bits, (len(case.lengths), case.num_frames, case.hidden_size), -1, 1)
    weights = _recurrent_weights(bits, case.rnn_type, case.bidirectional, case.num_inputs, case.hidden_size)
    return masked(inputs, case.lengths), weights, masked(cotangents, case.lengths)


def lookahead_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Draws inputs [B, T, H] with zero padding and PyTorch's kernel [H, 1, context]; both clips occur."""
    bits = _bits("lookahead")
    inputs = _uniform(bits, (len(LOOKAHEAD_LENGTHS), max(LOOKAHEAD_LENGTHS), 4), -10, 10)
    return masked(inputs, LOOKAHEAD_LENGTHS), _uniform(bits, (4, 1, 20), -1, 1)


def spectrograms(case: ModelCase) -> np.ndarray:
    """Draws [B, T, F] with zero padding and unit variance."""
    shape = (len(case.num_frames_of_rows), case.num_frames, NUM_BINS)
    return masked(_uniform(_bits("spectrograms"), shape, -1.7, 1.7), case.num_frames_of_rows)


def num_output_bins(config: ModelConfig) -> int:
    """Counts the frequency rows after the two convolutions."""
    num_bins = NUM_BINS
    for stride in config.frequency_strides:
        num_bins = -(-num_bins // stride)
    return num_bins


def model_weights(case: ModelCase) -> Weights:
    """Draws all parameters and running statistics of make_golden.DeepSpeech2, by their names there."""
    config, bits = case.config, _bits("model")
    weights = {}

    def add_norm(name: str, size: int, scale: float = 1.0) -> None:
        weights[f"{name}.weight"] = _uniform(bits, (size,), 0.5 * scale, 1.5 * scale)
        weights[f"{name}.bias"] = _uniform(bits, (size,), -0.5, 0.5)
        weights[f"{name}.running_mean"] = _uniform(bits, (size,), -0.3, 0.3)
        weights[f"{name}.running_var"] = _uniform(bits, (size,), 0.3, 1.0)

    in_channels = 1
    for layer, channels in enumerate(config.channels):
        taps = (config.frequency_kernels[layer], config.time_kernels[layer])
        fan_in = in_channels * taps[0] * taps[1]
        weights[f"conv_{layer}.weight"] = _symmetric(bits, (channels, in_channels, *taps), fan_in)
        weights[f"conv_{layer}.bias"] = _symmetric(bits, (channels,), 4)  # large enough to matter
        add_norm(f"conv_norm_{layer}", channels, case.conv_norm_scale)
        in_channels = channels

    num_inputs = config.channels[-1] * num_output_bins(config)
    for layer in range(config.num_layers):
        if layer:
            add_norm(f"rnn_norm_{layer}", config.hidden_size)
        layer_weights = _recurrent_weights(bits, config.rnn_type, config.bidirectional, num_inputs, config.hidden_size)
        weights |= {f"rnn_{layer}.{name}": value for name, value in layer_weights.items()}
        num_inputs = config.hidden_size
    if not config.bidirectional:
        shape = (config.hidden_size, 1, config.lookahead_context)
        weights["lookahead.weight"] = _symmetric(bits, shape, config.lookahead_context)
    add_norm("head_norm", config.hidden_size)
    weights["head.weight"] = _symmetric(bits, (NUM_LABELS, config.hidden_size), config.hidden_size)
    return weights


def ctc_rows() -> list[tuple[int, list[int]]]:
    """Returns (valid frames, labels) of each row: two long rows, and the limits of what CTC can align."""
    bits = _bits("ctc labels")
    return [
        (200, _labels(bits, 60, NUM_LABELS - 1)),
        (200, _labels(bits, 110, 3)),  # many repeats
        (60, [5] * 20),
        (20, []),
        (1, [7]),
        (4, [1, 2, 3, 4]),  # exact fit
        (7, [3, 3, 3, 3]),  # exact fit, with blanks between equal labels
        (3, [1, 2, 3, 4]),  # too short
        (6, [3, 3, 3, 3]),  # too short by one blank
        (0, [1, 2]),
        (0, []),
    ]


def ctc_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rows as logits [B, T', V] float32, output_lengths [B], labels [B, N] and num_labels [B] int32."""
    rows = ctc_rows()
    output_lengths = np.array([num_frames for num_frames, _ in rows], dtype=np.int32)
    num_labels = np.array([len(labels) for _, labels in rows], dtype=np.int32)
    labels = np.zeros((len(rows), num_labels.max()), dtype=np.int32)
    for row, (_, values) in enumerate(rows):
        labels[row, : len(values)] = values
    logits = _uniform(_bits("ctc logits"), (len(rows), output_lengths.max(), NUM_LABELS), -4, 4)
    return logits, output_lengths, labels, num_labels


def recurrent_to_ours(weights: Weights) -> dict[str, tuple[np.ndarray, ...]]:
    """Converts weights to one array per direction, with the inputs of the input kernels first."""
    suffixes = [suffix for suffix in ("", "_reverse") if f"bias_ih_l0{suffix}" in weights]
    return {
        "input_kernel": tuple(weights[f"weight_ih_l0{suffix}"].T for suffix in suffixes),
        "hidden_kernel": tuple(weights[f"weight_hh_l0{suffix}"] for suffix in suffixes),
        "input_bias": tuple(weights[f"bias_ih_l0{suffix}"] for suffix in suffixes),
        "hidden_bias": tuple(weights[f"bias_hh_l0{suffix}"] for suffix in suffixes),
    }


def model_to_ours(weights: Weights, config: ModelConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts `weights` to Flax parameters and batch statistics."""
    params: dict[str, Any] = {}
    statistics: dict[str, Any] = {}

    def add_norm(source: str, *path: str) -> None:
        parent, own = params, statistics
        for key in path[:-1]:
            parent, own = parent.setdefault(key, {}), own.setdefault(key, {})
        parent[path[-1]] = {"scale": weights[f"{source}.weight"], "bias": weights[f"{source}.bias"]}
        own[path[-1]] = {
            "mean": weights.get(f"{source}.running_mean"),
            "var": weights.get(f"{source}.running_var"),
        }

    for layer in range(len(config.channels)):
        kernel, bias = weights[f"conv_{layer}.weight"], weights[f"conv_{layer}.bias"]
        params[f"conv_{layer}"] = {"kernel": kernel.transpose(3, 2, 1, 0), "bias": bias}
        add_norm(f"conv_norm_{layer}", f"conv_norm_{layer}")
    for layer in range(config.num_layers):
        prefix = f"rnn_{layer}."
        ours = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        params[f"rnn_{layer}"] = recurrent_to_ours(ours)
        if layer:
            add_norm(f"rnn_norm_{layer}", f"rnn_{layer}", "norm")
    # PyTorch's view of [B, C, F', T'] keeps the rows of a channel together; ours keeps the channels of a row together.
    kernels = params["rnn_0"]["input_kernel"]
    by_channel = (kernel.reshape(config.channels[-1], -1, kernel.shape[-1]) for kernel in kernels)
    params["rnn_0"]["input_kernel"] = tuple(each.swapaxes(0, 1).reshape(kernels[0].shape) for each in by_channel)
    if not config.bidirectional:
        params["lookahead"] = {"kernel": weights["lookahead.weight"][:, 0].T}
    add_norm("head_norm", "head_norm")
    params["head"] = weights["head.weight"].T
    return params, statistics

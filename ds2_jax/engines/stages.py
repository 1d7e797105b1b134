"""The stages of `model/` as ONNX operators: each function adds one to a graph and returns the name of its output.

The transform is a convolution with windowed cosines and sines. Batch normalisation is folded into the weights next to
it. Time is the last axis up to the recurrent layers, and the first from there on.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ds2_jax.config import Config
from ds2_jax.config.feature_settings import FLOOR, LEAST_VARIANCE, FeatureConfig
from ds2_jax.config.mel_bands import mel_bands
from ds2_jax.engines import fourier
from ds2_jax.engines.builder import Graph, Value

EPSILON = 1e-5
"""Added to the variance in batch normalisation, as in `model/network`."""
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""Order of the gates in ONNX, as places in PyTorch's order: i f g o -> i o f c, r z n -> z r h."""
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}

Tree = Mapping[str, Any]
"""Weights or statistics by name."""


def spectra(g: Graph, waveforms: str, features: FeatureConfig, pads: tuple[int, int]) -> str:
    """Computes log spectra [B, F, T] of [B, S]; see `model.features.spectra`."""
    size, fft = features.window_length, features.fft_length
    function = getattr(np, {"hann": "hanning"}.get(features.window, features.window))
    window = features.scale * (function(size) if features.symmetric_window else function(size + 1)[:-1])
    angles = 2 * np.pi / fft * np.outer(np.arange(fft // 2 + 1), np.arange(size))
    kernels = np.concatenate([np.cos(angles), np.sin(angles)]) * window
    inputs = g("Unsqueeze", waveforms, np.array([1]))
    parts = g("Conv", inputs, kernels[:, None].astype(np.float32), strides=[features.hop_length], pads=list(pads))
    real, imaginary = g("Split", g("Mul", parts, parts), axis=1, outputs=2)
    power = g("Add", real, imaginary)
    if not features.num_mels:
        return str(g("Log", g("Add", g("Sqrt", power), np.float32(1))))
    bands = mel_bands(features).astype(np.float32)
    return str(g("Log", g("Add", g("MatMul", bands, power), np.float32(FLOOR))))


def reflected(g: Graph, waveforms: str, pads: tuple[int, int]) -> str:
    """Continues waveforms at both ends; see `model.features.reflected`."""
    num_samples = g("Gather", g("Shape", waveforms), np.int64(1))
    places = g("Range", np.int64(-pads[0]), g("Add", num_samples, np.int64(pads[1])), np.int64(1))
    last = g("Sub", g("Unsqueeze", "num_samples", np.array([1])), np.int64(1))
    period = g("Max", g("Mul", last, np.int64(2)), np.int64(1))
    places = g("Mod", g("Unsqueeze", places, np.array([0])), period)
    places = g("Min", places, g("Sub", period, places))
    return str(g("GatherElements", waveforms, g("Min", places, g("Max", last, np.int64(0))), axis=1))


def constant(g: Graph, valid: str) -> str:
    """Finds waveforms whose samples are all equal: [B, 1, 1] bool."""
    first = g("Slice", "waveforms", np.array([0]), np.array([1]), np.array([1]))
    differs = g("And", valid, g("Not", g("Equal", "waveforms", first)))
    number = g("ReduceMax", g("Cast", differs, to=TensorProto.FLOAT), axes=[1], keepdims=1)
    return str(g("Unsqueeze", g("Equal", number, np.float32(0)), np.array([2])))


def normalised_utterance(g: Graph, spectra: str, mask: str, length: str, constant: str, features: FeatureConfig) -> str:
    """See `model.features.normalise`."""
    spectra = g("Where", g("And", mask, g("Not", constant)), spectra, np.float32(0))
    count = g("Unsqueeze", g("Cast", length, to=TensorProto.FLOAT), np.array([1, 2]))
    axes = [1, 2] if features.normalisation == "utterance" else [2]
    terms = np.float32(features.num_bins if features.normalisation == "utterance" else 1)
    one = np.float32(1)
    mean = g("Div", _sum(g, spectra, axes), g("Max", g("Mul", count, terms), one))
    centred = g("Where", mask, g("Sub", spectra, mean), np.float32(0))
    degrees = g("Max", g("Sub", g("Mul", count, np.float32(features.num_bins)), one), one)
    variance = g("Div", _sum(g, g("Mul", centred, centred), [1, 2]), degrees)
    varies = g("Not", g("Equal", variance, np.float32(0)))
    deviation = g("Sqrt", g("Where", varies, variance, one))
    return str(g("Where", varies, g("Div", centred, deviation), np.float32(0)))


def normalised_running(
    g: Graph, spectra: str, mask: str, before: Sequence[str] | None, statistics: Tree, features: FeatureConfig
) -> tuple[str, list[str]]:
    """See `model.features.normalise_running`. Sums are float64, so they need no second number for what rounding takes.

    `before` names the frames, sums and squares so far. Returns the normalised spectra and the sums after them.
    """
    mean = np.asarray(statistics["mean"], np.float32)[:, None]
    deviation = float(statistics["deviation"])
    differences = g("Where", mask, g("Sub", spectra, mean), np.float32(0))
    exact = g("Cast", differences, to=TensorProto.DOUBLE)
    sums = g("CumSum", exact, np.int64(2))  # [B, F, T]
    squares = g("CumSum", g("ReduceMean", g("Mul", exact, exact), axes=[1], keepdims=1), np.int64(2))  # [B, 1, T]
    frames = g("CumSum", g("Cast", mask, to=TensorProto.INT64), np.int64(2))
    if before:
        frames = g("Add", frames, g("Unsqueeze", before[0], np.array([1, 2])))
        sums = g("Add", sums, g("Unsqueeze", before[1], np.array([2])))
        squares = g("Add", squares, g("Unsqueeze", before[2], np.array([1, 2])))
    prior = features.prior_seconds / features.window_stride
    count = g("Add", g("Cast", frames, to=TensorProto.DOUBLE), np.float64(prior))
    means = g("Div", sums, count)
    variance = g("Div", g("Add", squares, np.float64(prior * deviation**2)), count)
    variance = g("Sub", variance, g("ReduceMean", g("Mul", means, means), axes=[1], keepdims=1))
    variance = g("Max", variance, np.float64(LEAST_VARIANCE * deviation**2))
    normalised = g("Cast", g("Div", g("Sub", exact, means), g("Sqrt", variance)), to=TensorProto.FLOAT)
    lasts = [last(g, each, 2, 1) for each in (frames, sums, squares)]
    axes = np.array([1, 2]), np.array([2]), np.array([1, 2])
    after = [g("Squeeze", each, axis) for each, axis in zip(lasts, axes, strict=True)] if before else []
    return g("Where", mask, normalised, np.float32(0)), after


def normalised_global(g: Graph, spectra: str, mask: str, statistics: Tree) -> str:
    """See `model.features.normalise_global`."""
    mean = np.asarray(statistics["mean"], np.float32)[:, None]
    normalised = g("Div", g("Sub", spectra, mean), np.float32(statistics["deviation"]))
    return str(g("Where", mask, normalised, np.float32(0)))


def conv(g: Graph, hidden: str, config: Config, variables: Tree, i: int, pads: tuple[int, int]) -> str:
    """Convolves [B, C, F, T], normalises and clips; frames that are not valid are not zeroed."""
    model, own = config.model, variables["params"][f"conv_{i}"]
    factor, shift = _batch_norm(variables["params"][f"conv_norm_{i}"], variables["batch_stats"][f"conv_norm_{i}"])
    kernel = np.asarray(own["kernel"], np.float64).transpose(3, 2, 1, 0) * factor[:, None, None, None]
    bias = np.asarray(own["bias"], np.float64) * factor + shift
    strides = model.frequency_strides[i], model.time_strides[i]
    num_bins = config.features.num_bins if i == 0 else -(-config.features.num_bins // model.frequency_strides[0])
    if fourier.is_faster(num_bins, kernel.shape, strides):
        outputs = g("Add", fourier.conv(g, hidden, num_bins, kernel, strides, pads), _float(bias)[:, None, None])
    else:
        bins = model.frequency_kernels[i] // 2
        around = [bins, pads[0], bins, pads[1]]
        outputs = g("Conv", hidden, _float(kernel), _float(bias), strides=list(strides), pads=around)
    return str(g("Clip", outputs, np.float32(0), np.float32(20)))


def by_time(g: Graph, hidden: str, variables: Tree) -> str:
    """Turns [B, C, F', T'] into [T', B, F'*C]."""
    features = len(variables["params"]["rnn_0"]["input_kernel"][0])
    hidden = g("Transpose", hidden, perm=[3, 0, 2, 1])
    return str(g("Reshape", hidden, np.array([0, 0, features])))


def recurrent(
    g: Graph, hidden: str, config: Config, variables: Tree, i: int, frames: str, before: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Runs a recurrent layer on [T', B, F] -> [T', B, H], zeros past `frames` [B] int32.

    `before` names the state [B, H] before the first frame. Returns the state after the last valid frame too.
    """
    params, cell = variables["params"][f"rnn_{i}"], config.model.rnn_type
    units, directions = config.model.hidden_size, 2 if config.model.bidirectional else 1
    factor = shift = None
    if i > 0:
        factor, shift = _batch_norm(params["norm"], variables["batch_stats"][f"rnn_{i}"]["norm"])

    def gates(values: np.ndarray) -> np.ndarray:
        """Brings the gates of [G*H, ...] into ONNX's order."""
        parts = np.split(values, len(GATES[cell]))
        return np.concatenate([parts[place] for place in GATES[cell]])

    inputs, recurrences, biases = [], [], []
    for direction in range(directions):
        kernel = np.asarray(params["input_kernel"][direction], np.float64)  # [F, G*H]
        bias = np.asarray(params["input_bias"][direction], np.float64)
        if factor is not None:
            kernel, bias = kernel * factor[:, None], bias + shift @ kernel
        inputs.append(gates(kernel.T))
        recurrences.append(gates(np.asarray(params["hidden_kernel"][direction])))
        biases.append(np.concatenate([gates(bias), gates(np.asarray(params["hidden_bias"][direction]))]))
    attributes: dict[str, Any] = {"hidden_size": units, "direction": "bidirectional" if directions == 2 else "forward"}
    if cell == "gru":
        attributes["linear_before_reset"] = 1  # as in PyTorch
    start = [g("Unsqueeze", each, np.array([0])) for each in before]
    weights = (_float(np.stack(each)) for each in (inputs, recurrences, biases))
    outputs, *after = g(
        OPERATORS[cell], hidden, *weights, frames, *start, outputs=3 if cell == "lstm" else 2, **attributes
    )
    if before:  # without a valid frame the operator would give zeros
        empty = g("Unsqueeze", g("Equal", frames, np.int32(0)), np.array([1]))
        after = [
            g("Where", empty, old, g("Squeeze", new, np.array([0]))) for old, new in zip(before, after, strict=True)
        ]
    if directions == 2:
        return _sum(g, outputs, [1], keepdims=0), []
    return str(g("Squeeze", outputs, np.array([1]))), after


def lookahead(g: Graph, hidden: str, num_frames: Value, variables: Tree) -> str:
    """Sums each unit's next frames with weights: [T' + context - 1, B, H] -> [T', B, H]."""
    terms = []
    for k, weights in enumerate(np.asarray(variables["params"]["lookahead"]["kernel"], np.float32)):
        end = g("Add", num_frames, np.array([k]))
        shifted = g("Slice", hidden, np.array([k]), end, np.array([0]))
        terms.append(g("Mul", shifted, weights))
    total = functools.reduce(lambda a, b: g("Add", a, b), terms)
    return str(g("Clip", total, np.float32(0), np.float32(20)))


def head(g: Graph, hidden: str, variables: Tree) -> str:
    """Computes log-probabilities: [T', B, H] -> [B, T', V]."""
    params = variables["params"]
    factor, shift = _batch_norm(params["head_norm"], variables["batch_stats"]["head_norm"])
    kernel = np.asarray(params["head"], np.float64)
    logits = g("Add", g("MatMul", hidden, _float(kernel * factor[:, None])), _float(shift @ kernel))
    return str(g("Transpose", g("LogSoftmax", logits, axis=2), perm=[1, 0, 2]))


def _batch_norm(params: Tree, stats: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and the shift of each channel, float64, that batch normalisation amounts to."""
    mean, var, scale, bias = (
        np.asarray(each, np.float64) for each in (stats["mean"], stats["var"], params["scale"], params["bias"])
    )
    factor = scale / np.sqrt(var + EPSILON)
    return factor, bias - mean * factor


def mask(g: Graph, length: str, values: str, axis: int) -> str:
    """Marks the first `length` places of an axis: [B, 1, places] bool."""
    places = g("Range", np.int64(0), g("Gather", g("Shape", values), np.int64(axis)), np.int64(1))
    return str(g("Less", places, g("Unsqueeze", length, np.array([1, 2]))))


def valid(g: Graph, num_frames: int, delay: int, length: str) -> tuple[str, str, str]:
    """Marks the frames of a step that lie in the recording: [B, frames] bool.

    They are neighbours. Returns the first place and the number of them too, [B] int64 each.
    """
    start = g("Sub", g("Mul", "steps", np.int64(num_frames)), np.int64(delay))  # [B], index of the first frame
    index = g("Add", g("Unsqueeze", start, np.array([1])), np.arange(num_frames))
    inside = g("Less", index, g("Unsqueeze", length, np.array([1])))
    mask = g("And", g("Not", g("Less", index, np.int64(0))), inside)
    first = g("Min", g("Max", g("Neg", start), np.int64(0)), np.int64(num_frames))
    number = _sum(g, g("Cast", mask, to=TensorProto.INT64), [1], keepdims=0)
    return mask, first, number


def gathered(g: Graph, hidden: str, index: str) -> str:
    """Takes the frames `index` [T', B] of [T', B, H]."""
    shape = g("Shape", hidden)
    return str(g("GatherElements", hidden, g("Expand", g("Unsqueeze", index, np.array([2])), shape), axis=0))


def last(g: Graph, values: str, axis: int, number: int) -> str:
    """Takes the last places of an axis."""
    if not number:
        return str(g("Slice", values, np.array([0]), np.array([0]), np.array([axis])))
    return str(g("Slice", values, np.array([-number]), np.array([2**31]), np.array([axis])))


def _sum(g: Graph, values: str, axes: Sequence[int], keepdims: int = 1) -> str:
    return str(g("ReduceSum", values, np.array(axes), keepdims=keepdims))


def _float(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def value(name: str, dtype: Any, *shape: int | str) -> onnx.ValueInfoProto:
    """Describes an input or output of a model."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

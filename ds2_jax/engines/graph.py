"""What ONNX computes: a trained model as a graph of ONNX operators, from waveforms to log-probabilities.

Each function below writes one stage of `model/` with ONNX's own operators: the transform as a convolution with
windowed cosines and sines, recurrent layers as LSTM, GRU or RNN operators. Batch normalisation is folded into the
weights next to it. Time is the last axis up to the recurrent layers, and the first from there on.
"""

import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.config.feature_settings import FLOOR, LEAST_VARIANCE, FeatureConfig
from ds2_jax.config.live import delays, stream_state
from ds2_jax.config.mel_bands import mel_bands

OPSET, IR_VERSION = 17, 8
"""Versions of ONNX's operators and of its file format. Runtimes from 2022 on read them."""
EPSILON = 1e-5
"""Added to the variance in batch normalisation, as in `model/network`."""
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""Order of the gates in ONNX, as places in PyTorch's order: i f g o -> i o f c, r z n -> z r h."""
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}

Tree = Mapping[str, Any]
Value = str | np.ndarray | np.generic


class Graph:
    """Collects the operators of a graph. Call it to add one."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def __call__(self, operator: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> Any:
        """Adds an operator and returns the name of its output, or the names of several.

        Args:
            operator: ONNX's name of it.
            inputs: names of values, or arrays; "" for an optional input that is left out.
            outputs: number of outputs.
            attributes: those of the operator.
        """
        self._count += 1
        names = [f"{operator.lower()}_{self._count}" + f".{i}" * (outputs > 1) for i in range(outputs)]
        given = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self._nodes.append(helper.make_node(operator, given, names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: np.ndarray | np.generic) -> str:
        """Adds an array and returns its name. Equal small arrays are stored once."""
        values = np.ascontiguousarray(values).reshape(np.shape(values))
        content = values.tobytes() if values.size < 64 else str(len(self._weights)).encode()
        key = values.dtype.str, values.shape, content
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._weights)}"
            self._weights.append(numpy_helper.from_array(values, self._constants[key]))
        return self._constants[key]

    def model(
        self, config: Config, inputs: Sequence[onnx.ValueInfoProto], outputs: Mapping[str, onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Makes the model. `outputs` maps values of the graph to the outputs of the model."""
        nodes = [*self._nodes]
        for value, output in outputs.items():
            nodes.append(helper.make_node("Identity", [value], [output.name], name=output.name))
        graph = helper.make_graph(nodes, "deep_speech_2", inputs, list(outputs.values()), self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "ds2_jax"
        helper.set_model_props(model, {"config": json.dumps(json.loads(config_lib.to_json(config)))})
        return model


def whole(config: Config, variables: Tree) -> onnx.ModelProto:
    """Writes the model that recognises whole utterances.

    Args:
        config: settings of the run.
        variables: params and batch_stats, as NumPy arrays.

    Returns:
        A model with the inputs waveforms [B, S] float32 and num_samples [B] int64, and the outputs log_probs
        [B, T', V] float32 and output_lengths [B] int64. No row affects another.
    """
    g, features, model = Graph(), config.features, config.model
    hop = features.hop_length
    samples_axis = g("Range", np.int64(0), g("Gather", g("Shape", "waveforms"), np.int64(1)), np.int64(1))
    valid = g("Less", samples_axis, g("Unsqueeze", "num_samples", np.array([1])))  # [B, S]
    waveforms = g("Where", valid, "waveforms", np.float32(0))
    left = features.window_length // 2
    spectra = _spectra(g, waveforms, features, (left, features.window_length - left))  # [B, F, T]
    length = g("Add", g("Div", "num_samples", np.int64(hop)), np.int64(1))
    length = g("Where", g("Greater", "num_samples", np.int64(0)), length, np.int64(0))
    mask = _mask(g, length, spectra, 2)  # [B, 1, T]
    if features.normalisation in ("utterance", "bins"):
        hidden = _normalised_utterance(g, spectra, mask, length, _constant(g, valid), features)
    elif features.normalisation == "running":
        statistics = variables["batch_stats"]["spectrogram"]
        hidden, _ = _normalised_running(g, spectra, mask, None, statistics, features)
    else:
        hidden = _normalised_global(g, spectra, mask, variables["batch_stats"]["spectrogram"])

    hidden = g("Unsqueeze", hidden, np.array([1]))  # [B, 1, F, T]
    for i in range(2):
        taps, stride = model.time_kernels[i], model.time_strides[i]
        hidden = _conv(g, hidden, config, variables, i, (taps // 2, taps // 2))
        length = g("Div", g("Add", length, np.int64(stride - 1)), np.int64(stride))
        mask = g("Unsqueeze", _mask(g, length, hidden, 3), np.array([1]))  # [B, 1, 1, T']
        hidden = g("Where", mask, hidden, np.float32(0))
    hidden = _by_time(g, hidden, variables)  # [T', B, F'*C]
    frames = g("Cast", length, to=TensorProto.INT32)
    for i in range(model.num_layers):
        hidden, _ = _recurrent(g, hidden, config, variables, i, frames)
    if not model.bidirectional:
        num_frames = g("Shape", hidden, start=0, end=1)
        pads = np.array([0, 0, 0, model.lookahead_context - 1, 0, 0])
        hidden = _lookahead(g, g("Pad", hidden, pads), num_frames, variables)
    log_probs = _head(g, hidden, variables)
    inputs = [_value("waveforms", np.float32, "B", "S"), _value("num_samples", np.int64, "B")]
    outputs = {
        log_probs: _value("log_probs", np.float32, "B", "T", len(variables["params"]["head"][0])),
        length: _value("output_lengths", np.int64, "B"),
    }
    return g.model(config, inputs, outputs)


def streaming(config: Config, variables: Tree, output_frames: int) -> onnx.ModelProto:
    """Writes a step of a model that can stream; see `model.streaming.step`.

    Args:
        config: settings of the run.
        variables: params and batch_stats, as NumPy arrays.
        output_frames: output frames of a step (T').

    Returns:
        A model with the inputs samples [B, S] float32, num_samples [B] int64 and the state, and the outputs log_probs
        [B, T', V] float32 and the state after the step. All of the state is zero at the start of a stream. Its arrays
        have the names of `stream_state`, and in the outputs `next_` before them.
    """
    g, features, model = Graph(), config.features, config.model
    places, hop = delays(config, output_frames), features.hop_length
    shapes = stream_state(config)
    after: dict[str, str] = {"steps": g("Add", "steps", np.int64(1))}

    window = g("Concat", "samples_before", "samples", axis=1)
    after["samples_before"] = _last(g, window, 1, shapes["samples_before"][0][0])
    size = features.window_length
    needed = (places.frames - 1) * hop + size
    have = shapes["samples_before"][0][0] + places.frames * hop
    if have < needed:
        window = g("Pad", window, np.array([0, 0, 0, needed - have]))
    spectra = _spectra(g, g("Slice", window, np.array([0]), np.array([needed]), np.array([1])), features, (0, 0))
    length = g("Add", g("Div", "num_samples", np.int64(hop)), np.int64(1))
    length = g("Where", g("Greater", "num_samples", np.int64(0)), length, np.int64(0))
    length = g("Where", g("Less", "num_samples", np.int64(0)), np.int64(2**30), length)
    mask = g("Unsqueeze", _valid(g, places.frames, places.spectrogram, length)[0], np.array([1]))  # [B, 1, T]
    statistics = variables["batch_stats"]["spectrogram"]
    if features.normalisation == "running":
        before = "frames_before", "sums", "squares"
        hidden, sums = _normalised_running(g, spectra, mask, before, statistics, features)
        after |= zip(before, sums, strict=True)
    else:
        hidden = _normalised_global(g, spectra, mask, statistics)

    hidden = g("Unsqueeze", hidden, np.array([1]))  # [B, 1, F, T]
    num_frames = places.frames
    first = valid_frames = ""
    for i in range(2):
        name, stride = f"conv_{i}", model.time_strides[i]
        inputs = g("Concat", name, hidden, axis=3)
        after[name] = _last(g, inputs, 3, places.contexts[i])
        num_frames //= stride
        end = np.array([(num_frames - 1) * stride + model.time_kernels[i]])
        hidden = _conv(g, g("Slice", inputs, np.array([0]), end, np.array([3])), config, variables, i, (0, 0))
        length = g("Div", g("Add", length, np.int64(stride - 1)), np.int64(stride))
        mask, first, valid_frames = _valid(g, num_frames, places.convs[i], length)
        hidden = g("Where", g("Unsqueeze", mask, np.array([1, 2])), hidden, np.float32(0))
    hidden = _by_time(g, hidden, variables)  # [T', B, F'*C]

    # Recurrent operators take rows whose valid frames come first, so rows are rotated, and rotated back at the end.
    places_in_step = np.arange(num_frames)[:, None]
    turned = g("Mod", g("Add", places_in_step, g("Unsqueeze", first, np.array([0]))), np.int64(num_frames))
    back = g("Add", g("Sub", places_in_step, g("Unsqueeze", first, np.array([0]))), np.int64(num_frames))
    hidden = _gathered(g, hidden, turned)
    frames = g("Cast", valid_frames, to=TensorProto.INT32)
    states = [name for name in shapes if name.startswith(("hidden", "cell"))]
    per_layer = len(states) // model.num_layers
    for i in range(model.num_layers):
        own = states[i * per_layer : (i + 1) * per_layer]
        hidden, new = _recurrent(g, hidden, config, variables, i, frames, own)
        after |= zip(own, new, strict=True)
    hidden = _gathered(g, hidden, g("Mod", back, np.int64(num_frames)))

    if model.lookahead_context > 1:
        inputs = g("Concat", g("Transpose", "outputs", perm=[1, 0, 2]), hidden, axis=0)
        after["outputs"] = g("Transpose", _last(g, inputs, 0, model.lookahead_context - 1), perm=[1, 0, 2])
    else:
        inputs = hidden
    log_probs = _head(g, _lookahead(g, inputs, np.array([num_frames]), variables), variables)
    num_samples_in_step = places.frames * hop
    inputs_of_model = [_value("samples", np.float32, "B", num_samples_in_step), _value("num_samples", np.int64, "B")]
    outputs = {log_probs: _value("log_probs", np.float32, "B", num_frames, len(variables["params"]["head"][0]))}
    for name, (shape, dtype) in shapes.items():
        inputs_of_model.append(_value(name, dtype, "B", *shape))
        outputs[after[name]] = _value(f"next_{name}", dtype, "B", *shape)
    return g.model(config, inputs_of_model, outputs)


def _spectra(g: Graph, waveforms: str, features: FeatureConfig, pads: tuple[int, int]) -> str:
    """Computes log spectra [B, F, T] of [B, S]; see `model.features.spectra`."""
    size, fft = features.window_length, features.fft_length
    window = getattr(np, {"hann": "hanning"}.get(features.window, features.window))(size + 1)[:-1]
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


def _constant(g: Graph, valid: str) -> str:
    """Finds waveforms whose samples are all equal: [B, 1, 1] bool."""
    first = g("Slice", "waveforms", np.array([0]), np.array([1]), np.array([1]))
    differs = g("And", valid, g("Not", g("Equal", "waveforms", first)))
    number = g("ReduceMax", g("Cast", differs, to=TensorProto.FLOAT), axes=[1], keepdims=1)
    return str(g("Unsqueeze", g("Equal", number, np.float32(0)), np.array([2])))


def _normalised_utterance(
    g: Graph, spectra: str, mask: str, length: str, constant: str, features: FeatureConfig
) -> str:
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


def _normalised_running(
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
    lasts = [_last(g, each, 2, 1) for each in (frames, sums, squares)]
    axes = np.array([1, 2]), np.array([2]), np.array([1, 2])
    after = [g("Squeeze", each, axis) for each, axis in zip(lasts, axes, strict=True)] if before else []
    return g("Where", mask, normalised, np.float32(0)), after


def _normalised_global(g: Graph, spectra: str, mask: str, statistics: Tree) -> str:
    """See `model.features.normalise_global`."""
    mean = np.asarray(statistics["mean"], np.float32)[:, None]
    normalised = g("Div", g("Sub", spectra, mean), np.float32(statistics["deviation"]))
    return str(g("Where", mask, normalised, np.float32(0)))


def _conv(g: Graph, hidden: str, config: Config, variables: Tree, i: int, pads: tuple[int, int]) -> str:
    """Convolves [B, C, F, T], normalises and clips; frames that are not valid are not zeroed."""
    model, own = config.model, variables["params"][f"conv_{i}"]
    factor, shift = _batch_norm(variables["params"][f"conv_norm_{i}"], variables["batch_stats"][f"conv_norm_{i}"])
    kernel = np.asarray(own["kernel"], np.float64).transpose(3, 2, 1, 0) * factor[:, None, None, None]
    bias = np.asarray(own["bias"], np.float64) * factor + shift
    strides = [model.frequency_strides[i], model.time_strides[i]]
    bins = model.frequency_kernels[i] // 2
    around = [bins, pads[0], bins, pads[1]]
    outputs = g("Conv", hidden, _float(kernel), _float(bias), strides=strides, pads=around)
    return str(g("Clip", outputs, np.float32(0), np.float32(20)))


def _by_time(g: Graph, hidden: str, variables: Tree) -> str:
    """Turns [B, C, F', T'] into [T', B, F'*C]."""
    features = len(variables["params"]["rnn_0"]["input_kernel"][0])
    hidden = g("Transpose", hidden, perm=[3, 0, 2, 1])
    return str(g("Reshape", hidden, np.array([0, 0, features])))


def _recurrent(
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


def _lookahead(g: Graph, hidden: str, num_frames: Value, variables: Tree) -> str:
    """Sums each unit's next frames with weights: [T' + context - 1, B, H] -> [T', B, H]."""
    terms = []
    for k, weights in enumerate(np.asarray(variables["params"]["lookahead"]["kernel"], np.float32)):
        end = g("Add", num_frames, np.array([k]))
        shifted = g("Slice", hidden, np.array([k]), end, np.array([0]))
        terms.append(g("Mul", shifted, weights))
    total = functools.reduce(lambda a, b: g("Add", a, b), terms)
    return str(g("Clip", total, np.float32(0), np.float32(20)))


def _head(g: Graph, hidden: str, variables: Tree) -> str:
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


def _mask(g: Graph, length: str, values: str, axis: int) -> str:
    """Marks the first `length` places of an axis: [B, 1, places] bool."""
    places = g("Range", np.int64(0), g("Gather", g("Shape", values), np.int64(axis)), np.int64(1))
    return str(g("Less", places, g("Unsqueeze", length, np.array([1, 2]))))


def _valid(g: Graph, num_frames: int, delay: int, length: str) -> tuple[str, str, str]:
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


def _gathered(g: Graph, hidden: str, index: str) -> str:
    """Takes the frames `index` [T', B] of [T', B, H]."""
    shape = g("Shape", hidden)
    return str(g("GatherElements", hidden, g("Expand", g("Unsqueeze", index, np.array([2])), shape), axis=0))


def _last(g: Graph, values: str, axis: int, number: int) -> str:
    """Takes the last places of an axis."""
    if not number:
        return str(g("Slice", values, np.array([0]), np.array([0]), np.array([axis])))
    return str(g("Slice", values, np.array([-number]), np.array([2**31]), np.array([axis])))


def _sum(g: Graph, values: str, axes: Sequence[int], keepdims: int = 1) -> str:
    return str(g("ReduceSum", values, np.array(axes), keepdims=keepdims))


def _float(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def _value(name: str, dtype: Any, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores the weights of LSTM operators in 8 bits; their inputs are quantised at run time.

    The convolutions stay as they are. Their scale would be that of the whole batch, so that rows would affect each
    other.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    add_metadata(model, {"onnx.quant.pre_process": "onnxruntime.quant"})  # otherwise it advises to simplify the graph
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        return onnx.load(path)


def add_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Sets the metadata of a model."""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(metadata))

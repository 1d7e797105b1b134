"""What ONNX computes: a trained model as a graph of ONNX operators, from waveforms to log-probabilities."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ds2_jax.config import Config
from ds2_jax.config.live import delays, stream_state
from ds2_jax.engines import stages
from ds2_jax.engines.builder import Graph
from ds2_jax.engines.stages import Tree


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
    outside = left, features.window_length - left
    if features.edges == "reflected":
        waveforms, outside = stages.reflected(g, waveforms, outside), (0, 0)
    spectra = stages.spectra(g, waveforms, features, outside)  # [B, F, T]
    length = g("Add", g("Div", "num_samples", np.int64(hop)), np.int64(1))
    length = g("Where", g("Greater", "num_samples", np.int64(0)), length, np.int64(0))
    mask = stages.mask(g, length, spectra, 2)  # [B, 1, T]
    if features.normalisation in ("utterance", "bins"):
        hidden = stages.normalised_utterance(g, spectra, mask, length, stages.constant(g, valid), features)
    elif features.normalisation == "running":
        statistics = variables["batch_stats"]["spectrogram"]
        hidden, _ = stages.normalised_running(g, spectra, mask, None, statistics, features)
    else:
        hidden = stages.normalised_global(g, spectra, mask, variables["batch_stats"]["spectrogram"])

    hidden = g("Unsqueeze", hidden, np.array([1]))  # [B, 1, F, T]
    for i in range(2):
        taps, stride = model.time_kernels[i], model.time_strides[i]
        hidden = stages.conv(g, hidden, config, variables, i, (taps // 2, taps // 2))
        length = g("Div", g("Add", length, np.int64(stride - 1)), np.int64(stride))
        mask = g("Unsqueeze", stages.mask(g, length, hidden, 3), np.array([1]))  # [B, 1, 1, T']
        hidden = g("Where", mask, hidden, np.float32(0))
    hidden = stages.by_time(g, hidden, variables)  # [T', B, F'*C]
    frames = g("Cast", length, to=TensorProto.INT32)
    for i in range(model.num_layers):
        hidden, _ = stages.recurrent(g, hidden, config, variables, i, frames)
    if not model.bidirectional:
        num_frames = g("Shape", hidden, start=0, end=1)
        pads = np.array([0, 0, 0, model.lookahead_context - 1, 0, 0])
        hidden = stages.lookahead(g, g("Pad", hidden, pads), num_frames, variables)
    log_probs = stages.head(g, hidden, variables)
    inputs = [stages.value("waveforms", np.float32, "B", "S"), stages.value("num_samples", np.int64, "B")]
    outputs = {
        log_probs: stages.value("log_probs", np.float32, "B", "T", len(variables["params"]["head"][0])),
        length: stages.value("output_lengths", np.int64, "B"),
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
    after["samples_before"] = stages.last(g, window, 1, shapes["samples_before"][0][0])
    size = features.window_length
    needed = (places.frames - 1) * hop + size
    have = shapes["samples_before"][0][0] + places.frames * hop
    if have < needed:
        window = g("Pad", window, np.array([0, 0, 0, needed - have]))
    spectra = stages.spectra(g, g("Slice", window, np.array([0]), np.array([needed]), np.array([1])), features, (0, 0))
    length = g("Add", g("Div", "num_samples", np.int64(hop)), np.int64(1))
    length = g("Where", g("Greater", "num_samples", np.int64(0)), length, np.int64(0))
    length = g("Where", g("Less", "num_samples", np.int64(0)), np.int64(2**30), length)
    mask = g("Unsqueeze", stages.valid(g, places.frames, places.spectrogram, length)[0], np.array([1]))  # [B, 1, T]
    statistics = variables["batch_stats"]["spectrogram"]
    if features.normalisation == "running":
        before = "frames_before", "sums", "squares"
        hidden, sums = stages.normalised_running(g, spectra, mask, before, statistics, features)
        after |= zip(before, sums, strict=True)
    else:
        hidden = stages.normalised_global(g, spectra, mask, statistics)

    hidden = g("Unsqueeze", hidden, np.array([1]))  # [B, 1, F, T]
    num_frames = places.frames
    first = valid_frames = ""
    for i in range(2):
        name, stride = f"conv_{i}", model.time_strides[i]
        inputs = g("Concat", name, hidden, axis=3)
        after[name] = stages.last(g, inputs, 3, places.contexts[i])
        num_frames //= stride
        end = np.array([(num_frames - 1) * stride + model.time_kernels[i]])
        hidden = stages.conv(g, g("Slice", inputs, np.array([0]), end, np.array([3])), config, variables, i, (0, 0))
        length = g("Div", g("Add", length, np.int64(stride - 1)), np.int64(stride))
        mask, first, valid_frames = stages.valid(g, num_frames, places.convs[i], length)
        hidden = g("Where", g("Unsqueeze", mask, np.array([1, 2])), hidden, np.float32(0))
    hidden = stages.by_time(g, hidden, variables)  # [T', B, F'*C]

    # Recurrent operators take rows whose valid frames come first, so rows are rotated, and rotated back at the end.
    places_in_step = np.arange(num_frames)[:, None]
    turned = g("Mod", g("Add", places_in_step, g("Unsqueeze", first, np.array([0]))), np.int64(num_frames))
    back = g("Add", g("Sub", places_in_step, g("Unsqueeze", first, np.array([0]))), np.int64(num_frames))
    hidden = stages.gathered(g, hidden, turned)
    frames = g("Cast", valid_frames, to=TensorProto.INT32)
    states = [name for name in shapes if name.startswith(("hidden", "cell"))]
    per_layer = len(states) // model.num_layers
    for i in range(model.num_layers):
        own = states[i * per_layer : (i + 1) * per_layer]
        hidden, new = stages.recurrent(g, hidden, config, variables, i, frames, own)
        after |= zip(own, new, strict=True)
    hidden = stages.gathered(g, hidden, g("Mod", back, np.int64(num_frames)))

    if model.lookahead_context > 1:
        inputs = g("Concat", g("Transpose", "outputs", perm=[1, 0, 2]), hidden, axis=0)
        after["outputs"] = g("Transpose", stages.last(g, inputs, 0, model.lookahead_context - 1), perm=[1, 0, 2])
    else:
        inputs = hidden
    log_probs = stages.head(g, stages.lookahead(g, inputs, np.array([num_frames]), variables), variables)
    num_samples_in_step = places.frames * hop
    inputs_of_model = [
        stages.value("samples", np.float32, "B", num_samples_in_step),
        stages.value("num_samples", np.int64, "B"),
    ]
    outputs = {log_probs: stages.value("log_probs", np.float32, "B", num_frames, len(variables["params"]["head"][0]))}
    for name, (shape, dtype) in shapes.items():
        inputs_of_model.append(stages.value(name, dtype, "B", *shape))
        outputs[after[name]] = stages.value(f"next_{name}", dtype, "B", *shape)
    return g.model(config, inputs_of_model, outputs)


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

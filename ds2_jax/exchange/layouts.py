"""Writes the folders that other programs read: names of files, inputs, outputs and labels as each of them expects.

Sources: the readers of onnx-asr 0.12 (wav2vec2-ctc), sherpa-onnx 2.0 (OfflineRecognizer.from_omnilingual_asr_ctc) and
transformers.js 4.3 (Wav2Vec2ForCTC).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.engines import onnx_graph
from ds2_jax.exchange.target import Target
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import write_bytes, write_text
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import WORD_START

SHERPA_FRAME = 0.02
"""Seconds of an output frame in sherpa-onnx, which this model class cannot change."""
EPSILON = 1e-5
"""Keeps the level of silence finite, as in sherpa-onnx."""
ONLY_RATE = 16_000
"""Sample rate to which sherpa-onnx and onnx-asr resample, whatever the model."""


class Layout(NamedTuple):
    """What a program expects of a model.

    Attributes:
        file: path of the graph in the folder.
        waveforms: name of the input of waveforms, [B, S] float32.
        num_samples: name of the input of their lengths, [B] int64; "" if the program gives none.
        log_probs: name of the only output, [B, T', V] float32.
    """

    file: str
    waveforms: str
    num_samples: str
    log_probs: str


LAYOUTS: Mapping[Target, Layout] = {
    "sherpa-onnx": Layout("model.onnx", "x", "", "logits"),
    "onnx-asr": Layout("model.onnx", "input_values", "input_lengths", "logprobs"),
    "transformers.js": Layout("onnx/model.onnx", "input_values", "", "logits"),
}


def write(target: Target, config: Config, variables: Any, out: Path, *, int8: bool, level: float) -> list[Path]:
    """Writes the folder of a program.

    Args:
        target: the program.
        config: settings without places.
        variables: params and batch_stats, as NumPy arrays.
        out: the folder.
        int8: whether to quantise the recurrent layers.
        level: usual root mean square of recordings; sherpa-onnx gives waveforms with a mean square of 1.

    Returns:
        The files.

    Raises:
        InputError: the program cannot take this model.
    """
    layout = LAYOUTS[target]
    rate = config.features.sample_rate
    if target != "transformers.js" and rate != ONLY_RATE:
        raise InputError(
            f"--for {target} must have a model of {ONLY_RATE} Hz, to which {target} resamples, got one of {rate} Hz. "
            "Leave it out."
        )
    labels = list(Alphabet.of(config.data).units)
    if target == "sherpa-onnx":
        texts = {"tokens.txt": _vocabulary(labels)}
    elif target == "onnx-asr":
        samples = config.model.time_reduction * config.features.hop_length
        settings = {"model_type": "wav2vec2-ctc", "subsampling_factor": samples}
        texts = {"vocab.txt": _vocabulary(labels), "config.json": json.dumps(settings, indent=2) + "\n"}
    else:
        texts = _transformers(labels, config)
    model = onnx_graph.whole(config, variables)
    if int8:
        model = onnx_graph.quantised(model)
    repeats = 1
    if target == "sherpa-onnx":
        repeats = round(config.seconds_per_frame / SHERPA_FRAME)
        if repeats < 1 or abs(repeats * SHERPA_FRAME - config.seconds_per_frame) > 1e-6:
            raise InputError(
                f"--for sherpa-onnx must have frames of a multiple of 20 ms, got {1000 * config.seconds_per_frame:g} "
                "ms. Set features.window_stride and model.time_reduction so, and train again."
            )
    adapted = _adapted(model, layout, level if target == "sherpa-onnx" else 1.0, repeats)
    onnx_graph.add_metadata(adapted, {"config": json.dumps(json.loads(config_lib.to_json(config)))})
    write_bytes(out / layout.file, adapted.SerializeToString())
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in (layout.file, *texts)]


class LayoutEngine:
    """Runs a written folder as the program would; see `Engine`."""

    compiles = False
    one_core = None

    def __init__(self, target: Target, out: Path, config: Config) -> None:
        self._layout, self._config, self._scales = LAYOUTS[target], config, target == "sherpa-onnx"
        self._session = onnxruntime.InferenceSession(out / self._layout.file, providers=["CPUExecutionProvider"])
        self._repeats = round(config.seconds_per_frame / SHERPA_FRAME) if self._scales else 1

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine`. Programs without lengths get each row alone."""
        rows = []
        for waveform, length in zip(waveforms, num_samples, strict=True):
            row = waveform[None, : max(length, 1)]
            if self._scales:
                row = (row - row.mean()) / np.sqrt(row.var() + EPSILON)
            inputs = {self._layout.waveforms: row}
            if self._layout.num_samples:
                inputs[self._layout.num_samples] = np.array([length], np.int64)
            rows.append(self._session.run(None, inputs)[0][0, :: self._repeats])
        lengths = np.array([len(row) * (length > 0) for row, length in zip(rows, num_samples, strict=True)])
        log_probs = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[-1]), np.float32)
        for padded, row in zip(log_probs, rows, strict=True):
            padded[: len(row)] = row
        return log_probs, lengths

    def steps(self, num_frames: int) -> Any:
        """These folders hold no step."""
        raise NotImplementedError


def _adapted(model: onnx.ModelProto, layout: Layout, level: float, repeats: int) -> onnx.ModelProto:
    """Renames inputs and the output, computes lengths that the program does not give, scales and repeats frames."""
    inner = model.graph
    before, after = [], []
    inputs = [helper.make_tensor_value_info(layout.waveforms, onnx.TensorProto.FLOAT, ["B", "S"])]

    def constant(name: str, values: np.ndarray) -> str:
        inner.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    if level == 1.0:
        before.append(helper.make_node("Identity", [layout.waveforms], ["waveforms"]))
    else:
        factor = constant("usual_level", np.array(level, np.float32))
        before.append(helper.make_node("Mul", [layout.waveforms, factor], ["waveforms"]))
    if layout.num_samples:
        inputs.append(helper.make_tensor_value_info(layout.num_samples, onnx.TensorProto.INT64, ["B"]))
        before.append(helper.make_node("Identity", [layout.num_samples], ["num_samples"]))
    else:  # every row is as long as the array
        before += [
            helper.make_node("Shape", [layout.waveforms], ["rows"], start=0, end=1),
            helper.make_node("Shape", [layout.waveforms], ["length"], start=1, end=2),
            helper.make_node("Expand", ["length", "rows"], ["num_samples"]),
        ]
    last = "log_probs"
    if repeats > 1:  # [B, T', V] -> [B, T', R, V] -> [B, T' R, V]
        width = inner.output[0].type.tensor_type.shape.dim[2].dim_value
        axis, times = constant("repeated_axis", np.array([2])), constant("repeats", np.array([1, 1, repeats, 1]))
        shape = constant("repeated_shape", np.array([0, -1, width]))
        after += [
            helper.make_node("Unsqueeze", [last, axis], ["with_repeats"]),
            helper.make_node("Expand", ["with_repeats", times], ["repeated"]),
            helper.make_node("Reshape", ["repeated", shape], ["repeated_frames"]),
        ]
        last = "repeated_frames"
    if last != layout.log_probs:
        after.append(helper.make_node("Identity", [last], [layout.log_probs]))
    output = onnx.ValueInfoProto()
    output.CopyFrom(inner.output[0])
    output.name = layout.log_probs
    output.type.tensor_type.shape.dim[1].dim_param = "frames"
    nodes = [*before, *inner.node, *after]
    del inner.node[:], inner.input[:], inner.output[:], inner.value_info[:]
    inner.node.extend(nodes)
    inner.input.extend(inputs)
    inner.output.append(output)
    return model


def _vocabulary(labels: list[str]) -> str:
    """Writes a token and its number a line, with sentencepiece's sign for a space."""
    tokens = ["<blk>", *(label.replace(" ", WORD_START) for label in labels)]
    return "".join(f"{token} {number}\n" for number, token in enumerate(tokens))


def _transformers(labels: list[str], config: Config) -> dict[str, str]:
    """Writes the configuration and the tokenizer of a Wav2Vec2ForCTC.

    The blank is <pad>. It must not be special, because special tokens are removed before equal neighbours are joined,
    and double letters would become one.
    """
    tokens = ["<pad>", *(label.replace(" ", "|") for label in labels)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
    }
    model = {
        "model_type": "wav2vec2",
        "architectures": ["Wav2Vec2ForCTC"],
        "vocab_size": len(tokens),
        "pad_token_id": 0,
    }
    processor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": False,
        "feature_size": 1,
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": config.features.sample_rate,
    }
    tokenizer_settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "word_delimiter_token": "|"}
    files = {
        "config.json": model,
        "preprocessor_config.json": processor,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_settings,
    }
    return {name: json.dumps(each, indent=2, ensure_ascii=False) + "\n" for name, each in files.items()}

"""ONNX Runtime computes what JAX computes, in every variant of the model, whole and step by step."""

import collections
import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from ds2_jax.config import Config, FeatureConfig, ModelConfig
from ds2_jax.config.live import delays, stream_state
from ds2_jax.engines import onnx_graph
from ds2_jax.model.inference import infer, init_variables
from tests.small_runs import SMALL, noise

NUM_LABELS = 29
LENGTHS = np.array([12_000, 7000, 400, 0, 161], np.int32)
FORWARD = {"bidirectional": False, "lookahead_context": 3}
VARIANTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"rnn_type": "gru", "time_reduction": 2}, {"normalisation": "bins"}),
    ({"rnn_type": "rnn"}, {"num_mels": 40, "window": "hann"}),
    (FORWARD, {"normalisation": "running"}),
    (FORWARD | {"rnn_type": "gru", "lookahead_context": 1}, {"normalisation": "global", "window": "blackman"}),
    (FORWARD | {"rnn_type": "rnn"}, {"normalisation": "running", "num_mels": 40, "window_size": 0.025}),
    (FORWARD | {"time_reduction": 2}, {"normalisation": "bins", "window": "bartlett"}),
    ({}, {"edges": "reflected", "symmetric_window": True, "scale": 1.5}),
]
CAN_STREAM = [variant for variant in VARIANTS if variant[1].get("normalisation") in ("running", "global")]


def config_of(model: dict[str, Any], features: dict[str, Any]) -> Config:
    return Config(
        model=ModelConfig(**{**vars(SMALL), "channels": (3, 2), **model}),
        features=FeatureConfig(**features),
    )


def draw_variables(config: Config) -> Any:
    """Draws weights and statistics; with those of a new model, batch normalisation would do nothing."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_variables(config, NUM_LABELS))

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key if hasattr(path[-1], "key") else ""
        if name in ("var", "deviation", "scale"):
            return generator.uniform(0.5, 2, leaf.shape).astype(np.float32)
        return generator.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def batch() -> np.ndarray:
    """Draws rows of several lengths; one is constant, and one is shorter than a window. The padding is not zero."""
    waveforms = np.stack([noise(LENGTHS[0] / 16_000, seed) for seed in range(len(LENGTHS))])
    waveforms[1] = 0.25
    return waveforms


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def expected(config: Config, variables: Any) -> tuple[np.ndarray, np.ndarray]:
    run = jax.jit(functools.partial(infer, config=config, num_labels=NUM_LABELS))
    logits, lengths = run(variables, batch(), LENGTHS)
    return np.asarray(jax.nn.log_softmax(logits)), np.asarray(lengths)


@pytest.mark.parametrize(("model", "features"), VARIANTS)
def test_whole_utterances(model: dict[str, Any], features: dict[str, Any]) -> None:
    config = config_of(model, features)
    variables = draw_variables(config)
    whole = session(onnx_graph.whole(config, variables))

    def run(waveforms: np.ndarray, lengths: np.ndarray) -> list[Any]:
        return list(whole.run(None, {"waveforms": waveforms, "num_samples": lengths.astype(np.int64)}))

    log_probs, lengths = run(batch(), LENGTHS)
    wanted, wanted_lengths = expected(config, variables)
    assert lengths.tolist() == wanted_lengths.tolist()
    assert lengths[3] == 0
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(log_probs[row, :length], wanted[row, :length], rtol=0, atol=1e-5)
        if length:
            alone = run(batch()[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])[0][0]
            np.testing.assert_allclose(alone, log_probs[row, :length], rtol=0, atol=1e-5)
    assert np.abs(np.diff(log_probs[0, : lengths[0]], axis=0)).max() > 0.1, "the output must depend on the input"


@pytest.mark.parametrize(("model", "features"), CAN_STREAM)
@pytest.mark.parametrize("num_frames", [1, 4])
def test_steps_give_the_whole(model: dict[str, Any], features: dict[str, Any], num_frames: int) -> None:
    config = config_of(model, features)
    variables = draw_variables(config)
    step = session(onnx_graph.streaming(config, variables, num_frames))
    shapes = stream_state(config)
    state = {name: np.zeros((len(LENGTHS), *shape), dtype) for name, (shape, dtype) in shapes.items()}
    size = num_frames * config.model.time_reduction * config.features.hop_length
    waveforms = batch() * (np.arange(LENGTHS[0]) < LENGTHS[:, None])
    delay = delays(config, num_frames).output
    wanted, lengths = expected(config, variables)
    outputs: list[np.ndarray] = []
    while len(outputs) * num_frames < wanted.shape[1] + delay:
        start = len(outputs) * size
        samples = np.zeros((len(LENGTHS), size), np.float32)
        samples[:, : max(0, LENGTHS[0] - start)] = waveforms[:, start : start + size]
        known = np.where(start + size >= LENGTHS, LENGTHS, -1).astype(np.int64)
        found = dict(
            zip(
                [output.name for output in step.get_outputs()],
                step.run(None, {"samples": samples, "num_samples": known, **state}),
                strict=True,
            )
        )
        state = {name: found[f"next_{name}"] for name in state}
        outputs.append(found["log_probs"])
    streamed = np.concatenate(outputs, axis=1)[:, delay:]
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(streamed[row, :length], wanted[row, :length], rtol=0, atol=1e-5)


def test_only_recurrent_weights_are_quantised() -> None:
    config = config_of({"hidden_size": 64}, {})
    variables = draw_variables(config)
    plain, quantised = onnx_graph.whole(config, variables), onnx_graph.quantised(onnx_graph.whole(config, variables))
    kept, changed = (collections.Counter(node.op_type for node in model.graph.node) for model in (plain, quantised))
    assert changed["DynamicQuantizeLSTM"] == kept["LSTM"] == config.model.num_layers
    assert changed["Conv"] == kept["Conv"]
    assert not [name for name in changed if "Integer" in name or "QLinear" in name]
    inputs = {"waveforms": batch(), "num_samples": LENGTHS.astype(np.int64)}
    one, other = (session_of(model).run(None, inputs)[0] for model in (plain, quantised))
    assert 1e-4 < np.abs(one[0] - other[0]).max() < 1.0
    alone = session_of(quantised).run(None, {"waveforms": batch()[:1], "num_samples": LENGTHS[:1].astype(np.int64)})[0]
    np.testing.assert_allclose(alone[0], other[0], rtol=0, atol=0.1)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_settings_travel_with_the_graph() -> None:
    config = config_of({}, {})
    model = onnx_graph.whole(config, draw_variables(config))
    assert [entry.key for entry in model.metadata_props] == ["config"]
    assert dataclasses.asdict(config)["model"]["rnn_type"] in model.metadata_props[0].value

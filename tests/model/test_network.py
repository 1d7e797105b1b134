"""Padding never changes the model or the training objective, and sizes and types are as documented."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.config import AugmentConfig, Config, FeatureConfig, ModelConfig
from ds2_jax.config.frames import conv_output_lengths
from ds2_jax.model import network, spec_augment
from ds2_jax.model import update as update_lib
from ds2_jax.model.conv import strided_conv
from ds2_jax.model.inference import infer, make_model
from ds2_jax.model.network import DeepSpeech2, MaskedBatchNorm, clipped_relu
from ds2_jax.model.update import TrainState, init_state, train_step

NUM_LABELS = 6
SMALL = Config(
    features=FeatureConfig(sample_rate=4_000),  # 41 bins, a hop of 40 samples
    augment=AugmentConfig(2, 6, 2, 4, time_warp_frames=6, time_warp_probability=0.8),
    model=ModelConfig(
        hidden_size=5, num_layers=2, channels=(3, 2), frequency_kernels=(7, 5), time_kernels=(5, 3), dropout=0.3
    ),
)
VARIANTS = {
    "lstm": SMALL.model,
    "unidirectional gru": dataclasses.replace(SMALL.model, rnn_type="gru", bidirectional=False, lookahead_context=4),
    "rnn, reduction 4": dataclasses.replace(SMALL.model, rnn_type="rnn", time_reduction=4),
}
NUM_SAMPLES = (1_000, 613, 39, 377)  # 26, 16, 1 and 10 frames
LABELS = ([1, 2, 2, 5], [3, 4], [1, 1, 2], [5])  # the third has more labels than frames
EMPTY = -1
TOLERANCES = {np.float64: 1e-10, np.float32: 1e-4}
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
Arrays = dict[str, np.ndarray]


def make_batch(
    order: tuple[int, ...] = (0, 1, 2, 3, EMPTY),
    max_samples: int = 1_430,
    max_labels: int = 6,
    filler: float = 0,
    float_type: type = np.float64,
    seed: int = 0,
) -> Arrays:
    """Makes a batch of the utterances in `order` (EMPTY makes an empty row), padded with `filler`."""
    batch: Arrays = {
        "waveforms": np.full((len(order), max_samples), filler, float_type),
        "num_samples": np.zeros(len(order), np.int32),
        "labels": np.zeros((len(order), max_labels), np.int32),
        "num_labels": np.zeros(len(order), np.int32),
        "indices": np.full(len(order), -1, np.int32),
    }
    for row, index in enumerate(order):
        if index != EMPTY:
            size, labels = NUM_SAMPLES[index], LABELS[index]
            waveform = 0.3 * np.random.default_rng((seed, index)).standard_normal(size)
            batch["waveforms"][row, :size] = np.float32(waveform)  # the same numbers in both types
            batch["labels"][row, : len(labels)] = labels
            batch["num_samples"][row], batch["num_labels"][row] = size, len(labels)
            batch["indices"][row] = 100 + index
    return batch


@functools.cache
def initial_variables(config: Config) -> Any:
    """NumPy float32 params and batch_stats."""
    state = init_state(config, NUM_LABELS, optax.identity())
    return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})


@functools.cache
def compiled_step(config: Config) -> Any:
    keep_gradients = optax.trace(decay=0)  # its state is the last gradient

    @functools.partial(jax.jit, compiler_options=QUICK_COMPILATION)
    def run(variables: Any, batch: Any) -> Any:
        start = TrainState(
            jnp.int32(0), variables["params"], variables["batch_stats"], keep_gradients.init(variables["params"])
        )
        dtype = batch["waveforms"].dtype  # settings have no float64
        with mock.patch.object(update_lib, "make_model", lambda *settings: make_model(*settings).clone(dtype=dtype)):
            state, metrics = train_step(
                start, batch, jnp.int32(3), config=config, num_labels=NUM_LABELS, tx=keep_gradients
            )
        return {
            "loss": metrics.pop("loss"),
            "gradients": state.opt_state.trace,
            "statistics": state.batch_stats,
        }, metrics

    return run


def objective(batch: Arrays, config: Config = SMALL) -> Any:
    """Returns loss, gradients and batch statistics of a training step, and the metrics that count rows."""
    float_type = batch["waveforms"].dtype
    with jax.enable_x64(float_type == np.float64):
        variables = jax.tree.map(lambda x: x.astype(float_type), initial_variables(config))
        return jax.tree.map(np.asarray, compiled_step(config)(variables, batch))


def assert_trees_close(actual: Any, expected: Any, tolerance: float) -> None:
    references: Mapping[Any, np.ndarray] = dict(jax.tree.leaves_with_path(expected))
    for path, value in jax.tree.leaves_with_path(actual):
        reference, name = references[path], jax.tree_util.keystr(path)
        scale = np.abs(reference).max()
        if "'gradients'" in name and "conv_" in name and "norm" not in name and "bias" in name:
            # Batch norm cancels this bias, so its gradient is rounding error. Compare it with its kernel's gradient.
            scale = np.abs(references[(*path[:-1], jax.tree_util.DictKey("kernel"))]).max()
        assert value.dtype == reference.dtype
        assert scale > 0, name
        assert np.abs(value - reference).max() <= tolerance * scale, name


def assert_same_objective(
    one: Arrays, other: Arrays, config: Config = SMALL, other_config: Config | None = None
) -> None:
    (actual, counts), (expected, expected_counts) = objective(one, config), objective(other, other_config or config)
    assert expected["loss"].dtype == one["waveforms"].dtype
    assert_trees_close(actual, expected, TOLERANCES[one["waveforms"].dtype.type])
    assert counts["alignable"] == expected_counts["alignable"] == 3
    assert counts["unalignable"] == expected_counts["unalignable"] == 1


float_types = pytest.mark.parametrize("float_type", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])


def tight(float_type: type = np.float64) -> Arrays:
    """Makes a batch without empty rows, padded to the longest utterance only."""
    return make_batch((0, 1, 2, 3), max_samples=1_000, max_labels=4, float_type=float_type)


@float_types
def test_training_does_not_depend_on_empty_rows_and_the_amount_of_padding(float_type: type) -> None:
    assert_same_objective(make_batch(float_type=float_type), tight(float_type))


@float_types
@settings(max_examples=5, deadline=None)
@given(order=st.permutations([0, 1, 2, 3, EMPTY]), seed=st.integers(0, 100))
def test_training_does_not_depend_on_the_order_of_rows(order: list[int], seed: int, float_type: type) -> None:
    batch = make_batch(tuple(order), float_type=float_type, seed=seed)
    assert_same_objective(batch, make_batch(float_type=float_type, seed=seed))


@float_types
@pytest.mark.parametrize("filler", [np.nan, np.inf, 1.0])
def test_training_does_not_read_padding(filler: float, float_type: type) -> None:
    one, other = (make_batch(filler=value, float_type=float_type) for value in (filler, 0))
    for left, right in zip(*(jax.tree.leaves(objective(batch)) for batch in (one, other)), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "lstm"])
def test_training_of_other_models_does_not_depend_on_padding(name: str) -> None:
    config = dataclasses.replace(SMALL, model=VARIANTS[name])
    assert_same_objective(make_batch((3, EMPTY, 0, 2, 1), filler=np.nan), tight(), config)


def test_loss_is_the_mean_over_alignable_rows() -> None:
    alone, _ = objective(make_batch((1, 1, EMPTY, EMPTY, 1)))  # three copies of an utterance have three times its loss
    once, _ = objective(make_batch((EMPTY, EMPTY, EMPTY, 1, EMPTY)))
    assert alone["loss"] == pytest.approx(once["loss"], rel=1e-10)


def test_rematerialised_layers_have_the_same_gradients_and_statistics() -> None:
    assert_same_objective(make_batch(), make_batch(), dataclasses.replace(SMALL, rematerialise=True), SMALL)


def test_batch_of_empty_rows_trains_nothing() -> None:
    batch = make_batch((EMPTY,) * 5, filler=np.nan)
    results, counts = objective(batch)
    assert results["loss"] == 0
    assert counts["alignable"] == 0
    for path, gradient in jax.tree.leaves_with_path(results["gradients"]):
        np.testing.assert_array_equal(gradient, 0, err_msg=jax.tree_util.keystr(path))
    assert all(np.isfinite(statistic).all() for statistic in jax.tree.leaves(results["statistics"]))


@functools.cache
def compiled_inference(config: Config) -> Any:
    return jax.jit(functools.partial(infer, config=config, num_labels=NUM_LABELS), compiler_options=QUICK_COMPILATION)


@pytest.mark.parametrize("name", VARIANTS)
def test_evaluation_of_an_utterance_depends_on_nothing_else(name: str) -> None:
    config = dataclasses.replace(SMALL, model=VARIANTS[name])
    variables = initial_variables(config)
    batch = make_batch((0, 1, EMPTY, 2, 3), filler=np.nan, float_type=np.float32)
    infer = compiled_inference(config)
    logits, output_lengths = infer(variables, batch["waveforms"], batch["num_samples"])
    assert output_lengths[2] == 0
    alone = make_batch((1,), max_samples=NUM_SAMPLES[1], float_type=np.float32)
    expected, (count,) = infer(variables, alone["waveforms"], alone["num_samples"])
    assert output_lengths[1] == count == expected.shape[1]
    assert np.abs(logits[1, :count] - expected[0]).max() <= 1e-5 * np.abs(expected).max()


@functools.cache
def parameter_shapes(config: ModelConfig) -> Any:
    spectrograms = jax.ShapeDtypeStruct((1, 8, 161), jnp.float32)
    num_frames = jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(DeepSpeech2(config, 29).init, jax.random.key(0), spectrograms, num_frames)["params"]


def test_defaults_have_86_618_400_parameters() -> None:
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(ModelConfig()))) == 86_618_400


def test_lookahead_only_in_unidirectional_models() -> None:
    config = ModelConfig(bidirectional=False, lookahead_context=7, hidden_size=16)
    params = parameter_shapes(config)
    assert params["lookahead"]["kernel"].shape == (7, 16)
    assert [kernel.shape for kernel in params["rnn_0"]["hidden_kernel"]] == [(64, 16)]
    assert "lookahead" not in parameter_shapes(ModelConfig())


@pytest.mark.parametrize("time_reduction", [2, 4])
def test_output_lengths_are_those_of_real_convolutions(time_reduction: Any) -> None:
    config = ModelConfig(time_reduction=time_reduction)
    for num_frames in range(1, 14):
        size = (num_frames, 161)
        for i in range(2):
            taps = (config.time_kernels[i], config.frequency_kernels[i])
            strides = (config.time_strides[i], config.frequency_strides[i])
            plain = functools.partial(
                jax.lax.conv_general_dilated, window_strides=strides, padding=[(t // 2, t // 2) for t in taps]
            )
            images, kernel = jnp.zeros((1, 1, *size)), jnp.zeros((1, 1, *taps))
            after = jax.eval_shape(plain, images, kernel).shape[2:]
            ours = jax.eval_shape(
                functools.partial(strided_conv, strides=strides), images.transpose(0, 2, 3, 1), jnp.zeros((*taps, 1, 1))
            )
            assert ours.shape[1:3] == after
            size = after
        assert conv_output_lengths(num_frames, time_reduction) == size[0]
    assert conv_output_lengths(0, time_reduction) == 0


def test_bfloat16_model_keeps_logits_and_gradients_float32() -> None:
    batch = make_batch(float_type=np.float32)
    lower = dataclasses.replace(SMALL, model=dataclasses.replace(SMALL.model, dtype="bfloat16"))
    variables = initial_variables(SMALL)
    outputs = [
        compiled_inference(config)(variables, batch["waveforms"], batch["num_samples"])[0] for config in (lower, SMALL)
    ]
    assert outputs[0].dtype == jnp.float32
    assert 0 < np.abs(outputs[0] - outputs[1]).max() <= 0.03 * np.abs(outputs[1]).max()

    def step(state: TrainState) -> Any:
        tx = optax.identity()
        return train_step(state, batch, jnp.int32(0), config=lower, num_labels=NUM_LABELS, tx=tx)  # type: ignore[arg-type]

    start = TrainState(jnp.int32(0), variables["params"], variables["batch_stats"], optax.EmptyState())
    state, metrics = jax.eval_shape(step, start)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {np.dtype(np.float32)}
    assert metrics["loss"].dtype == jnp.float32


def test_batch_norm_takes_its_statistics_from_valid_frames() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (2, 4, 3, 5)).astype(np.float32)
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    poisoned = np.where(mask[..., None, None], values, np.nan)
    norm = MaskedBatchNorm()
    variables = norm.init(jax.random.key(0), poisoned, mask, True)
    outputs, updated = norm.apply(variables, poisoned, mask, True, mutable=["batch_stats"])
    valid = values[mask].reshape(-1, 5).astype(np.float64)  # [4 frames * 3, C]
    expected = (values - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-5)
    np.testing.assert_allclose(outputs, np.where(mask[..., None, None], expected, 0), atol=1e-5)
    statistics = updated["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * valid.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * valid.var(0, ddof=1), rtol=1e-5)


def test_dropout_sets_its_share_to_zero_and_scales_the_rest() -> None:
    keys = spec_augment.row_keys(0, jnp.int32(0), jnp.arange(8))
    dropout = jax.jit(network.dropout, static_argnums=(2, 3))
    outputs = np.asarray(dropout(jnp.ones((8, 50, 10)), keys, 1, 0.3))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    assert np.mean(outputs == 0) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 4_000))
    assert len({row.tobytes() for row in outputs}) == 8
    other_layer = np.asarray(dropout(jnp.ones((8, 50, 10)), keys, 2, 0.3))
    assert (outputs != other_layer).any((1, 2)).all()
    longer = np.asarray(dropout(jnp.ones((3, 77, 10)), keys[5:], 1, 0.3))
    np.testing.assert_array_equal(longer[:, :50], outputs[5:])


def test_dropout_without_keys_says_so() -> None:
    with pytest.raises(ValueError, match=r"row_keys must be given in training with dropout, got None\."):
        network.dropout(jnp.ones((1, 2, 3)), None, 1, 0.3)


def test_clipped_relu_has_no_gradient_at_its_ends_and_keeps_nan() -> None:
    inputs = jnp.array([-1.0, 0, 1, 19, 20, 21])
    np.testing.assert_array_equal(clipped_relu(inputs), [0, 0, 1, 19, 20, 20])
    np.testing.assert_array_equal(jax.grad(lambda x: clipped_relu(x).sum())(inputs), [0, 0, 1, 1, 0, 0])
    assert jnp.isnan(clipped_relu(jnp.array(jnp.nan)))

"""Counts of work equal counts by hand and by the compiler, and plans and exponents equal known ones."""

import dataclasses

import jax
import numpy as np
import pytest

from ds2_jax.bench import costs
from ds2_jax.config import Config, FeatureConfig, ModelConfig
from ds2_jax.data.plan import PlannedBatch
from ds2_jax.model.inference import make_model

MODELS = {
    "default": ModelConfig(),
    "gru": ModelConfig(hidden_size=64, num_layers=2, rnn_type="gru"),
    "unidirectional": ModelConfig(hidden_size=64, num_layers=3, bidirectional=False),
    "wide front end": ModelConfig(hidden_size=64, num_layers=1, frequency_strides=(1, 1)),
}


def test_flops_of_a_model_counted_by_hand() -> None:
    model = ModelConfig(
        hidden_size=3, num_layers=2, channels=(2, 5), frequency_kernels=(3, 5), time_kernels=(1, 3), time_reduction=4
    )
    config = Config(features=FeatureConfig(sample_rate=4000, window_size=0.01, window_stride=0.005), model=model)
    assert config.features.num_bins == 21  # 11 after the first convolution, 6 after the second
    # 9 frames give 5 after the first convolution and 3 after the second. 4 frames give 2 and 1. 0 frames give 0.
    first, second, after = (5 + 2) * 11 * 2 * (3 * 1 * 1), (3 + 1) * 6 * 5 * (5 * 3 * 2), 3 + 1
    recurrent = 2 * 4 * 3 * (6 * 5 + 3) + 2 * 4 * 3 * (3 + 3)
    head = 3 * 7
    expected = 2 * (first + second + after * (recurrent + head))
    assert costs.forward_flops(config, 7, [9, 4, 0]) == expected
    assert costs.train_flops(config, 7, [9, 4, 0]) == 3 * expected


def test_flops_of_the_default_model() -> None:
    """It has 86.6 million parameters. A step has 229 output frames in 16 rows, and counts three times."""
    convolutions = 81 * 32 * 41 * 11 + 41 * 32 * 21 * 11 * 32
    recurrent = 2 * 4096 * (1312 + 1024) + 4 * 2 * 4096 * (1024 + 1024)
    expected = 3 * 2 * 16 * 229 * (convolutions + recurrent + 1024 * 29)
    assert costs.train_flops(Config(), 29, np.full(16, 457)) == expected
    assert expected == pytest.approx(2.136e12, rel=1e-3)
    assert costs.num_parameters(Config(), 29) == 86_618_400


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_flops_agree_with_the_compilers_count(model: ModelConfig) -> None:
    """There is one output frame, because the compiler counts the body of a loop once."""
    config = Config(model=model)
    network = make_model(config, 29)
    inputs = jax.ShapeDtypeStruct((3, 2, 161), "float32"), jax.ShapeDtypeStruct((3,), "int32")
    variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    analysis = jax.jit(network.apply).lower(variables, *inputs).cost_analysis()
    assert analysis is not None
    # The compiler also counts gates, batch norm, masks, and the zero taps of folded convolutions.
    assert 1 <= analysis["flops"] / costs.forward_flops(config, 29, [2, 2, 2]) < 1.08


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0, 2.5])
def test_exponents_are_found(exponent: float) -> None:
    sizes = [1, 2, 4, 10]
    assert costs.fit_exponent(sizes, [7 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_exponent_of_noisy_values_is_the_least_squares_one() -> None:
    assert costs.fit_exponent([1, 10, 100], [1, 100, 100]) == pytest.approx(1.0)


def test_costs_of_a_plan_of_two_batches() -> None:
    config = Config()
    plan = [PlannedBatch(10 * 160 - 1, np.array([0, 1])), PlannedBatch(30 * 160 - 1, np.array([2, -1]))]
    num_samples = np.array([10, 5, 20]) * 160 - 1
    epoch = costs.cost_of_epoch(plan, num_samples, config, 29)
    assert dataclasses.asdict(epoch) == {
        "num_utterances": 3,
        "hours": pytest.approx((35 * 160 - 3) / 16_000 / 3600),
        "num_steps": 2,
        "num_shapes": 2,
        "padding": pytest.approx(1 - 35 / 80),
        "flops": costs.train_flops(config, 29, [10, 10, 30, 30]),
        "largest_batch": (2, 30),
    }


def test_assumed_durations_have_the_corpus_mean() -> None:
    durations = costs.librispeech_durations()
    assert len(durations) == costs.LIBRISPEECH_UTTERANCES
    assert durations.sum() / 3600 == pytest.approx(961, abs=2)
    assert (np.diff(durations) >= 0).all()
    assert durations.min() >= 1.5
    assert durations.max() <= 17
    assert (np.histogram(durations, np.arange(1, 18))[0].argmax() + 1) == 15
    assert len(costs.librispeech_durations(1)) == 1

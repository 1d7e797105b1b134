"""A stream in steps gives the log-probabilities of the whole recording, and depends on no later sample than it says."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.config import Config, FeatureConfig, ModelConfig
from ds2_jax.config.live import can_stream, delays, look_ahead_seconds
from ds2_jax.model import streaming
from ds2_jax.model.features import RunningSums, Statistics, normalise_running
from ds2_jax.model.inference import infer, init_variables

NUM_LABELS = 7
CONFIG = Config(
    features=FeatureConfig(num_mels=8, normalisation="running", prior_seconds=0.5),
    model=ModelConfig(
        hidden_size=6, num_layers=2, channels=(2, 3), bidirectional=False, lookahead_context=4, time_reduction=4
    ),
)


def changed(**fields: Any) -> Config:
    features = {name: value for name, value in fields.items() if name in FeatureConfig.__dataclass_fields__}
    model = {name: value for name, value in fields.items() if name in ModelConfig.__dataclass_fields__}
    return dataclasses.replace(
        CONFIG,
        features=dataclasses.replace(CONFIG.features, **features),
        model=dataclasses.replace(CONFIG.model, **model),
    )


@functools.cache
def weights(config: Config, dtype: str = "float32") -> Any:
    """Draws weights and statistics that are not those of a new model."""
    rng = np.random.default_rng(0)
    variables = init_variables(config, NUM_LABELS)

    def draw(path: Any, leaf: jax.Array) -> np.ndarray:
        """Means stay small: with larger ones the activations would be zero, and nothing would read the input."""
        return rng.normal(0, 0.05, leaf.shape) if path[-1].key == "mean" else rng.uniform(0.5, 1.5, leaf.shape)

    stats = jax.tree_util.tree_map_with_path(draw, variables["batch_stats"])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), {**variables, "batch_stats": stats})


def whole(config: Config, waveforms: np.ndarray, num_samples: np.ndarray, dtype: str = "float32") -> list[np.ndarray]:
    run = jax.jit(functools.partial(infer, config=config, num_labels=NUM_LABELS))
    logits, lengths = run(weights(config, dtype), waveforms, num_samples)
    return [np.asarray(jax.nn.log_softmax(row))[:length] for row, length in zip(logits, lengths, strict=True)]


def streamed(
    config: Config, waveforms: np.ndarray, num_samples: np.ndarray, num_frames: int, dtype: str = "float32"
) -> list[np.ndarray]:
    """Runs the rows as streams, in steps of so many output frames."""
    size = num_frames * config.model.time_reduction * config.features.hop_length
    delay = delays(config, num_frames).output
    num_steps = -(-waveforms.shape[1] // size) + -(-delay // num_frames) + 1
    padded = np.pad(waveforms, ((0, 0), (0, num_steps * size - waveforms.shape[1])))
    state, outputs = streaming.start(config, len(waveforms), jnp.dtype(dtype)), []
    step = jax.jit(functools.partial(streaming.step, config=config))
    for i in range(num_steps):
        known = np.where((i + 1) * size >= num_samples, num_samples, -1).astype(np.int32)
        state, log_probs = step(weights(config, dtype), state, padded[:, i * size : (i + 1) * size], known)
        outputs.append(log_probs)
    joined = np.concatenate(outputs, axis=1)[:, delay:]
    frames = 1 + num_samples // config.features.hop_length
    lengths = -(-frames // config.model.time_reduction)
    return [row[:length] for row, length in zip(joined, lengths.tolist(), strict=True)]


def recordings(dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Makes two recordings of different lengths, with zeros behind the shorter one."""
    num_samples = np.array([9_876, 6_400], np.int32)
    waveforms = np.random.default_rng(1).normal(0, 0.1, (2, 9_876)) * (np.arange(9_876) < num_samples[:, None])
    return waveforms.astype(dtype), num_samples


VARIANTS: list[dict[str, Any]] = [
    {},
    {"normalisation": "global"},
    {"time_reduction": 2},
    {"rnn_type": "gru", "num_mels": 0},
    {"window_size": 0.032},
    {"window_size": 0.025, "time_kernels": (3, 1)},
    {"time_kernels": (5, 7), "lookahead_context": 1},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_steps_give_what_the_whole_gives(fields: dict[str, Any]) -> None:
    config = changed(**fields)
    rows = recordings()
    for own, expected in zip(streamed(config, *rows, num_frames=3), whole(config, *rows), strict=True):
        assert own.shape == expected.shape
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)


def test_steps_give_the_whole_in_float64() -> None:
    with jax.enable_x64(True):
        weights.cache_clear()
        rows = recordings("float64")
        for num_frames in (1, 4):
            parts = streamed(CONFIG, *rows, num_frames, "float64")
            for own, expected in zip(parts, whole(CONFIG, *rows, "float64"), strict=True):
                # The model converts the inputs of its products to float32.
                np.testing.assert_allclose(own, expected, rtol=0, atol=1e-8)
    weights.cache_clear()


def test_text_depends_on_no_sample_behind_the_look_ahead() -> None:
    with jax.enable_x64(True):
        waveforms, num_samples = recordings("float64")
        waveforms, num_samples = waveforms[:1], num_samples[:1]
        frame = 5
        reach = frame * CONFIG.model.time_reduction * 160 + round(look_ahead_seconds(CONFIG) * 16_000)
        [expected] = whole(CONFIG, waveforms, num_samples, "float64")
        for start, same in ((reach, True), (reach - 200, False)):
            other = waveforms.copy()
            other[:, start:] += np.random.default_rng(2).normal(0, 0.5, other[:, start:].shape)
            [found] = whole(CONFIG, other, num_samples, "float64")
            assert np.allclose(found[: frame + 1], expected[: frame + 1], rtol=0, atol=1e-12) == same
    weights.cache_clear()


def test_running_normalisation_is_that_of_the_frames_so_far() -> None:
    rng = np.random.default_rng(0)
    spectrograms, mean = rng.normal(3, 2, (1, 50, 4)), rng.normal(3, 1, 4)
    statistics = Statistics(jnp.asarray(mean, jnp.float32), jnp.float32(1.5))
    config = FeatureConfig(num_mels=4, normalisation="running", prior_seconds=0.2)  # 20 frames
    mask = np.arange(50)[None, :] < 40
    found, sums = normalise_running(
        jnp.asarray(spectrograms, jnp.float32), jnp.asarray(mask), statistics, RunningSums.zeros(1, 4), config
    )
    for t in (0, 7, 39):
        frames = spectrograms[0, : t + 1]
        own_mean = (20 * mean + frames.sum(0)) / (20 + t + 1)
        # The prior is 20 frames around `mean` with this deviation.
        square = 20 * (1.5**2 + np.square(mean - own_mean).mean()) + np.square(frames - own_mean).mean(1).sum()
        expected = (frames[-1] - own_mean) / np.sqrt(square / (20 + t + 1))
        np.testing.assert_allclose(found[0, t], expected, rtol=0, atol=1e-5)
    assert not np.asarray(found[0, 40:]).any()
    assert sums.num_frames.tolist() == [40]


def test_sums_of_hours_are_exact() -> None:
    """Two hours of frames in blocks. Sums of single floats are wrong by 1e-3 here."""
    rng = np.random.default_rng(0)
    statistics = Statistics(jnp.zeros(2), jnp.ones(()))
    config = FeatureConfig(num_mels=2, normalisation="running")
    blocks = (rng.normal(4, 0.3, (720, 1, 1000, 2))).astype(np.float32)
    step = jax.jit(lambda block, sums: normalise_running(block, jnp.ones((1, 1000), bool), statistics, sums, config)[1])
    sums = RunningSums.zeros(1, 2)
    for block in blocks:
        sums = step(block, sums)
    exact = blocks.astype(np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(np.asarray(sums.sums, np.float64)[0].sum(0), exact, rtol=2e-8)
    assert int(sums.num_frames[0]) == 720_000


def test_silence_of_hours_makes_noise_no_louder_than_ten_times() -> None:
    statistics = Statistics(jnp.zeros(2), jnp.ones(()))
    config = FeatureConfig(num_mels=2, normalisation="running")
    silence = RunningSums(
        jnp.array([10**7]), jnp.full((1, 2, 2), jnp.array([[-5e7], [0.0]])), jnp.array([[2.5e8, 0.0]])
    )
    found, _ = normalise_running(jnp.full((1, 1, 2), -4.99), jnp.ones((1, 1), bool), statistics, silence, config)
    assert 0 < np.abs(found).max() <= 0.11


def test_only_a_forward_model_without_future_streams() -> None:
    assert can_stream(CONFIG)
    assert not can_stream(changed(bidirectional=True))
    assert not can_stream(changed(normalisation="bins"))

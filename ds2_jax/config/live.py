"""What a configuration means for live recognition, without JAX."""

from ds2_jax.config.settings import Config

STEP_SECONDS = 0.16
"""Seconds of sound that are recognised at once: short for quick text, long for many streams at once."""


def can_stream(config: Config) -> bool:
    """Whether the model of a configuration can run on a stream."""
    return not config.model.bidirectional and config.features.needs_statistics


def look_ahead_seconds(config: Config) -> float:
    """Returns how many seconds of sound behind the middle of an output frame its log-probabilities depend on."""
    model, stride = config.model, config.features.window_stride
    first, second = model.time_kernels
    reach = first // 2 + second // 2 * model.time_strides[0] + (model.lookahead_context - 1) * model.time_reduction
    return config.features.window_size / 2 + reach * stride


def describe(config: Config) -> str:
    """Says how far a model's text is behind the speech, or what a model costs that cannot stream."""
    if can_stream(config):
        behind = 1000 * (look_ahead_seconds(config) + STEP_SECONDS)
        return f"text comes {behind:.0f} ms behind the speech, with {1000 * config.seconds_per_frame:.0f} ms a frame"
    return (
        "this model needs the whole segment, so the open one is recognised again as it grows, which takes some ten "
        "times as long; configs/an4_live.py shows how to train one that does not"
    )

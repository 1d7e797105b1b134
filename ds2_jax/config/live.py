"""What a configuration means for live recognition, without JAX."""

import dataclasses
from typing import Any

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Delays:
    """How many frames behind the newest samples each stage is, and what it keeps of its input.

    A step takes S samples, or K frames. After step j (from 0), stage i has given its frames up to
    (j + 1) * K / strides - delay, without that one.

    Attributes:
        frames: K, input frames of a step.
        spectrogram: delay in input frames.
        convs: delay of each convolution in its output frames.
        contexts: input frames that each convolution keeps.
        output: delay in output frames.
    """

    frames: int
    spectrogram: int
    convs: tuple[int, int]
    contexts: tuple[int, int]
    output: int


def delays(config: Config, output_frames: int) -> Delays:
    """Computes the delays of steps that give `output_frames` frames."""
    model, size, hop = config.model, config.features.window_length, config.features.hop_length
    before = spectrogram = -(-(size - size // 2) // hop) - 1  # a window reaches so many strides beyond its middle
    convs, contexts = [], []
    for taps, stride in zip(model.time_kernels, model.time_strides, strict=True):
        delay = max(0, -(-max(before + taps // 2 + 1 - stride, before - taps // 2) // stride))
        convs.append(delay)
        contexts.append(delay * stride + taps // 2 - before)
        before = delay
    output = before + model.lookahead_context - 1
    return Delays(
        output_frames * model.time_reduction, spectrogram, (convs[0], convs[1]), (contexts[0], contexts[1]), output
    )


def stream_state(config: Config) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Lists the arrays of the state between two steps: the shape without the axis B, and the type, of each name."""
    model, features, places = config.model, config.features, delays(config, 1)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "steps": ((), np.int64),
        "samples_before": ((features.window_length // 2 + places.spectrogram * features.hop_length,), np.float32),
    }
    if features.normalisation == "running":
        shapes |= {
            "frames_before": ((), np.int64),
            "sums": ((features.num_bins,), np.float64),
            "squares": ((), np.float64),
        }
    bins, channels = features.num_bins, (1, model.channels[0])
    for i in range(2):
        shapes[f"conv_{i}"] = ((channels[i], bins, places.contexts[i]), np.float32)
        bins = -(-bins // model.frequency_strides[i])
    for i in range(model.num_layers):
        shapes[f"hidden_{i}"] = ((model.hidden_size,), np.float32)
        if model.rnn_type == "lstm":
            shapes[f"cell_{i}"] = ((model.hidden_size,), np.float32)
    if model.lookahead_context > 1:
        shapes["outputs"] = ((model.lookahead_context - 1, model.hidden_size), np.float32)
    return shapes


def describe(config: Config) -> str:
    """Says how far a model's text is behind the speech, or what a model costs that cannot stream."""
    if can_stream(config):
        behind = 1000 * (look_ahead_seconds(config) + STEP_SECONDS)
        return f"text comes {behind:.0f} ms behind the speech; a frame lasts {1000 * config.seconds_per_frame:.0f} ms"
    return (
        "this model needs the whole segment, so the open one is recognised again as it grows, which takes some ten "
        "times as long; configs/an4_live.py shows how to train one that does not"
    )

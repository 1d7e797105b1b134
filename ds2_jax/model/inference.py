"""Builds the model of a configuration and runs it on waveforms.

All functions are pure, and no row of a batch affects another.
"""

import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from ds2_jax.config import Config
from ds2_jax.model import features
from ds2_jax.model.ctc import ctc_losses
from ds2_jax.model.network import DeepSpeech2

Batch = dict[str, jax.Array]
STATISTICS = "spectrogram"
"""Name of the spectrogram's statistics in batch_stats. Training measures them before the first step."""


def make_model(config: Config, num_labels: int, axis_name: str | None = None) -> DeepSpeech2:
    """Builds the model of a configuration. `num_labels` counts the blank."""
    return DeepSpeech2(config.model, num_labels, axis_name, rematerialise=config.rematerialise)


def init_variables(config: Config, num_labels: int) -> dict[str, Any]:
    """Draws the weights from `config.seed`. Returns params and the initial batch_stats.

    If the features need statistics of the training set, batch_stats has a place for them.
    """
    spectrograms, num_frames = jnp.zeros((1, 8, config.features.num_bins)), jnp.full((1,), 8, jnp.int32)
    variables = dict(_draw(make_model(config, num_labels), jax.random.key(config.seed), spectrograms, num_frames))
    if config.features.needs_statistics:
        unknown = {"mean": jnp.zeros(config.features.num_bins), "deviation": jnp.ones(())}
        variables["batch_stats"] = {**variables["batch_stats"], STATISTICS: unknown}
    return variables


@functools.partial(jax.jit, static_argnums=0)
def _draw(model: DeepSpeech2, key: jax.Array, spectrograms: jax.Array, num_frames: jax.Array) -> Mapping[str, Any]:
    """A function of its own, so that a process traces equal models once, for their shapes or their weights."""
    return model.init(key, spectrograms, num_frames)


def statistics_of(batch_stats: Any) -> features.Statistics | None:
    """Returns the statistics of the training set's spectrograms; None if the model needs none."""
    return features.Statistics(**batch_stats[STATISTICS]) if STATISTICS in batch_stats else None


def infer(
    variables: dict[str, Any],
    waveforms: jax.Array,
    num_samples: jax.Array,
    *,
    config: Config,
    num_labels: int,
    transform: features.Transform = jnp.fft.rfft,
) -> tuple[jax.Array, jax.Array]:
    """Computes logits from waveforms with the running statistics. Evaluation and transcription share this function.

    Args:
        variables: params and batch_stats.
        waveforms: [B, S] float32, samples in [-1, 1].
        num_samples: [B] int32, valid samples.
        config: the run's configuration.
        num_labels: number of labels, blank included (V).
        transform: see `features.Transform`.

    Returns:
        logits [B, T', V] float32 and output_lengths [B] int32.
    """
    statistics = statistics_of(variables["batch_stats"])
    spectrograms, num_frames = features.extract_features(waveforms, num_samples, config.features, statistics, transform)
    model = make_model(config, num_labels)
    # The type that Flax gives `apply` covers calls that also return changed variables. This call does not.
    return cast(tuple[jax.Array, jax.Array], model.apply(variables, spectrograms, num_frames))


def eval_step(variables: dict[str, Any], batch: Batch, *, config: Config, num_labels: int) -> dict[str, jax.Array]:
    """Computes each row's log-probabilities and loss. No row affects another.

    Returns:
        log_probs [B, T', V] float32 (natural logarithms), output_lengths [B] int32, losses [B] float32 (nats),
        alignable [B] bool, indices [B] int32.
    """
    logits, output_lengths = infer(
        variables, batch["waveforms"], batch["num_samples"], config=config, num_labels=num_labels
    )
    losses, alignable = ctc_losses(logits, output_lengths, batch["labels"], batch["num_labels"])
    return {
        "log_probs": jax.nn.log_softmax(logits),
        "output_lengths": output_lengths,
        "losses": losses,
        "alignable": alignable,
        "indices": batch["indices"],
    }

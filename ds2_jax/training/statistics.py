"""Measures the spectrograms of a training set, for normalisations that need no future of the recording."""

import dataclasses
import functools
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ds2_jax.config import Config, FeatureConfig
from ds2_jax.data.pipeline import batches
from ds2_jax.data.plan import plan_evaluation
from ds2_jax.data.splits import Split
from ds2_jax.model.features import Statistics, log_spectrogram
from ds2_jax.model.inference import STATISTICS
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import replicate
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

MOST_UTTERANCES = 1000
"""More utterances change the statistics little."""


def with_statistics(state: TrainState, config: Config, split: Split, mesh: Mesh) -> TrainState:
    """Measures the statistics of the training set and puts them into a state from before the first update.

    Args:
        state: the state.
        config: settings of the run. If its normalisation needs no statistics, the state is returned as it is.
        split: the training set. Up to MOST_UTTERANCES of it are read, the same in every process.
        mesh: the devices of the state.

    Raises:
        InputError: no utterance can be read, or all of them are silent.
    """
    if not config.features.needs_statistics:
        return state
    measured = replicate(measure(config, split)._asdict(), mesh)

    def put(batch_stats: dict[str, dict[str, jax.Array]]) -> dict[str, dict[str, jax.Array]]:
        return {**batch_stats, STATISTICS: jax.tree.map(jnp.copy, measured)}

    average = state.average
    if average:
        average = {**average, "batch_stats": put(average["batch_stats"])}
    return dataclasses.replace(state, batch_stats=put(state.batch_stats), average=average)


def measure(config: Config, split: Split) -> Statistics:
    """Measures the log spectrograms of up to MOST_UTTERANCES utterances. Raises InputError if none can be read."""
    features, num_utterances = config.features, len(split.utterances)
    chosen = np.random.default_rng(config.seed).permutation(num_utterances)[:MOST_UTTERANCES]
    part = Split([split.utterances[i] for i in sorted(chosen.tolist())], split.alphabet)
    logger.info(f"measuring the spectrograms of {len(part.utterances):,} of {num_utterances:,} utterances")
    plan = plan_evaluation(
        part.num_samples(features.sample_rate),
        batch_size=config.data.batch_size,
        batch_samples=math.ceil(config.data.batch_seconds * features.sample_rate),
        num_buckets=config.data.num_buckets,
        hop_length=features.hop_length,
    )
    stream = batches(
        plan,
        part,
        sample_rate=features.sample_rate,
        hop_length=features.hop_length,
        num_workers=config.data.num_workers,
        on_problem=lambda _: None,  # training reports it
    )
    sums = jax.jit(functools.partial(_sums, config=features))
    total, squares, num_frames = np.zeros(features.num_bins), np.zeros(features.num_bins), 0.0
    for batch in stream:
        means, deviations, frames = (
            np.asarray(each, np.float64) for each in sums(batch["waveforms"], batch["num_samples"])
        )
        total += (means * frames[:, None]).sum(0)
        squares += ((deviations + np.square(means)) * frames[:, None]).sum(0)
        num_frames += frames.sum()
    mean = total / max(num_frames, 1)
    variance = float((squares / max(num_frames, 1) - np.square(mean)).mean())
    if not variance > 0:
        raise InputError("data.train must hold recordings with sound, got none that can be read. Correct the manifest.")
    return Statistics(jnp.asarray(mean, jnp.float32), jnp.asarray(math.sqrt(variance), jnp.float32))


def _sums(waveforms: jax.Array, num_samples: jax.Array, config: FeatureConfig) -> tuple[jax.Array, ...]:
    """Computes mean and variance of each bin of each row, [B, F], and the numbers of frames [B]."""
    spectrograms, num_frames = log_spectrogram(waveforms, num_samples, config)
    valid = jnp.arange(spectrograms.shape[1])[None, :, None] < num_frames[:, None, None]
    count = jnp.maximum(num_frames, 1)[:, None]
    mean = spectrograms.sum(1) / count
    variance = jnp.where(valid, jnp.square(spectrograms - mean[:, None]), 0).sum(1) / count
    return mean, variance, num_frames

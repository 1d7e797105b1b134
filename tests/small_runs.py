"""Helpers for tests of training and commands: a model that compiles in seconds, its data, and its runs."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import soundfile

from ds2_jax.config import Config, DataConfig, ModelConfig, OptimConfig
from ds2_jax.data.manifest import Utterance, write_manifest
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import TrainState, init_state
from ds2_jax.runs import run_folder
from ds2_jax.runs.checkpoints import Checkpoints
from ds2_jax.text.alphabet import Alphabet

RATE = 16_000
SMALL = ModelConfig(
    hidden_size=16,
    num_layers=2,
    channels=(2, 2),
    frequency_kernels=(11, 5),
    time_kernels=(5, 3),
    frequency_strides=(4, 4),
    time_reduction=4,
)
SMALL_CONFIG = Config(
    epochs=2,
    data=DataConfig(batch_size=8, num_buckets=1, num_workers=1),
    model=SMALL,
    optim=OptimConfig(optimizer="sgd", learning_rate=0.01, schedule="constant", weight_decay=0.0),
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Draws white noise, [S] float32."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    return samples.astype(np.float32)


def write_noise(path: Path, seconds: float = 0.5, seed: int = 0) -> Path:
    """Writes a WAV file of white noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), RATE)
    return path


def write_noise_manifest(folder: Path, transcripts: tuple[str, ...] = ("GO", "YES", "NO"), name: str = "all") -> Path:
    """Writes FOLDER/NAME.jsonl, a manifest of noise with transcripts, for tests in which nothing must be learned."""
    utterances = []
    for i, transcript in enumerate(transcripts):
        seconds = 0.5 + 0.05 * i
        audio = write_noise(folder / f"{name}{i}.wav", seconds, i)
        utterances.append(Utterance(audio, seconds, transcript, f"{name}{i}", f"speaker{i % 2}"))
    path = folder / f"{name}.jsonl"
    write_manifest(path, utterances)
    return path


def with_manifests(config: Config, manifest: Path) -> Config:
    """Sets one manifest as the train, dev and test split of a configuration."""
    data = dataclasses.replace(config.data, train=manifest, dev=manifest, test=manifest)
    return dataclasses.replace(config, data=data)


def some_state(config: Config, seed: int = 0) -> TrainState:
    """Makes a state with drawn weights, without compiling their initialisation."""
    tx = make_optimizer(config, steps_per_epoch=1, total_steps=1)
    shapes = jax.eval_shape(lambda: init_state(config, Alphabet.of(config.data).size, tx))
    generator = np.random.default_rng(seed)

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return generator.normal(0, 0.2, shape.shape).astype(shape.dtype)

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    batch_stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes.batch_stats)
    params = jax.tree.map(draw, shapes.params)
    average = {"params": params, "batch_stats": batch_stats} if config.optim.ema_decay else {}
    return dataclasses.replace(zeros, params=params, batch_stats=batch_stats, average=average)


def write_untrained_run(folder: Path, config: Config, state: TrainState | None = None) -> Path:
    """Writes a run whose only checkpoint holds `state`, or drawn weights."""
    run_folder.open_run(folder, config, overwrite=False)
    with Checkpoints(folder, config) as checkpoints:
        checkpoints.save(state or some_state(config))
        checkpoints.record(0, 1.0)
    return folder

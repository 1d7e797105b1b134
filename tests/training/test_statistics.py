"""The statistics of a training set's spectrograms are measured before the first update and kept with the run."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ds2_jax.data.manifest import Utterance, read_manifest
from ds2_jax.data.splits import Split
from ds2_jax.model.features import log_spectrogram
from ds2_jax.model.inference import STATISTICS
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import init_state
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training.statistics import measure, with_statistics
from tests.small_runs import SMALL_CONFIG, noise, write_noise_manifest

CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False),
    optim=dataclasses.replace(SMALL_CONFIG.optim, ema_decay=0.9),
)


def test_they_are_those_of_all_frames(tmp_path: Path) -> None:
    utterances = read_manifest(write_noise_manifest(tmp_path))
    split = Split(utterances, Alphabet.of(CONFIG.data))
    found = measure(CONFIG, split)
    frames = []
    for i in range(len(utterances)):
        waveform = noise(0.5 + 0.05 * i, i)
        rounded = np.round(waveform * 2**15) / 2**15  # as the file has it
        spectrograms, _ = log_spectrogram(
            jnp.asarray(rounded[None], jnp.float32), jnp.array([len(rounded)]), CONFIG.features
        )
        frames.append(np.asarray(spectrograms[0], np.float64))
    together = np.concatenate(frames)
    np.testing.assert_allclose(found.mean, together.mean(0), rtol=1e-3, atol=1e-4)
    assert float(found.deviation) == pytest.approx(np.sqrt(together.var(0).mean()), rel=1e-3)
    state = init_state(CONFIG, 29, make_optimizer(CONFIG, 1, 1))
    state = with_statistics(state, CONFIG, split, data_mesh(jax.devices()[:1]))
    np.testing.assert_array_equal(state.batch_stats[STATISTICS]["mean"], found.mean)
    np.testing.assert_array_equal(state.evaluated["batch_stats"][STATISTICS]["mean"], found.mean)


def test_a_model_that_needs_none_measures_none(tmp_path: Path) -> None:
    state = init_state(SMALL_CONFIG, 29, make_optimizer(SMALL_CONFIG, 1, 1))
    assert with_statistics(state, SMALL_CONFIG, Split([], Alphabet.of(SMALL_CONFIG.data)), data_mesh()) is state


def test_recordings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    split = Split([Utterance(tmp_path / "gone.wav", 1.0, "A", "gone")], Alphabet.of(CONFIG.data))
    with pytest.raises(InputError, match=r"^data\.train must hold recordings with sound, got none that can be read"):
        measure(CONFIG, split)

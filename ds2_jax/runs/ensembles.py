"""Several trained models that recognise together: their log-probabilities are averaged in each frame."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.config import Config
from ds2_jax.engines.engine import EngineName, Steps
from ds2_jax.runs.model import Model, open_model, read_config
from ds2_jax.runs.named import find_model
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.errors import InputError


class EnsembleEngine:
    """An `engines.engine.Engine` of several models, which must have one alphabet and one length of frames.

    Args:
        models: two or more models.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self.compiles = any(model.compiles for model in models)
        self.one_core = None

    def log_probs(self, waveforms: np.ndarray, num_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the mean of the models' log-probabilities, scaled so that the probabilities of a frame sum to 1."""
        outputs = [model.log_probs(waveforms, num_samples) for model in self._models]
        output_lengths = outputs[0][1]
        frames = max(output_lengths, default=0)
        mean = np.mean([log_probs[:, :frames] for log_probs, _ in outputs], axis=0, dtype=np.float32)
        return mean - np.logaddexp.reduce(mean, axis=-1, keepdims=True), output_lengths

    def steps(self, num_frames: int) -> Steps:  # noqa: ARG002 - the protocol's
        """Raises InputError: ensembles do not stream."""
        raise InputError(f"RUN must be one model to recognise a stream, got {len(self._models)}. Leave --with out.")


def open_models(run: Path, others: Sequence[Path], engine: EngineName | None = None) -> Model:
    """Opens a model, together with others if there are any.

    Calibration and tuned weights are those of the first.

    Args:
        run: the first model; see `open_model`.
        others: the others, or names of models.
        engine: what runs them.

    Raises:
        InputError: see `open_model`; or a model has another alphabet, or frames of another length.
    """
    first = open_model(run, engine)
    if not others:
        return first
    models = [first, *(open_model(find_model(path), engine) for path in others)]
    for path, model in zip(others, models[1:], strict=True):
        for what, value in _frames(model.config).items():
            if value != (expected := _frames(first.config)[what]):
                advice = "Average models of one recipe and one alphabet."
                raise InputError(f"--with {path} must have the {what} of {run}, {expected!r}, got {value!r}. {advice}")
    return Model(first.config, EnsembleEngine(models), first.path, has_step=False)


def weights_of_all(run: Path, others: Sequence[Path]) -> tuple[list[int], str]:
    """Identifies the weights of a model and of others: the steps of the first, and a SHA-256; see `weights_of`."""
    steps, digest = weights_of(run, read_config(run))
    if not others:
        return steps, digest
    paths = [find_model(path) for path in others]
    digests = [digest, *(weights_of(path, read_config(path))[1] for path in paths)]
    return steps, hashlib.sha256(" ".join(digests).encode()).hexdigest() if all(digests) else ""


def _frames(config: Config) -> dict[str, object]:
    """What the models of an ensemble have in common."""
    return {
        "data.alphabet": config.data.alphabet,
        "features.sample_rate": config.features.sample_rate,
        "features.window_stride": config.features.window_stride,
        "model.time_reduction": config.model.time_reduction,
    }

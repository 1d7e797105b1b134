"""Opens the models of a server, and runs them before the first request does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ds2_jax.recognition.piece_outputs import BATCH_SIZE
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.segments import LONGEST, WHOLE
from ds2_jax.serving.scheduler import BATCH_SECONDS
from ds2_jax.serving.settings import ModelSettings
from ds2_jax.system.checks import require

SHORTEST, GROWTH = 1.0, 1.25
"""Pieces are padded to a second, and to lengths that grow by this factor; see `log_probs_of`."""


def named(
    runs: Sequence[Path], names: Sequence[str], tables: Mapping[str, ModelSettings], usual: ModelSettings
) -> dict[str, ModelSettings]:
    """Gives each model its name. The first one is the default.

    Args:
        runs: models that are called by the last part of their paths.
        names: NAME=RUN for further ones.
        tables: the models of a file of settings.
        usual: engine and decoding options of models that have no table.

    Raises:
        InputError: no model is named, two have one name, or a name is missing.
    """
    pairs = [(run.resolve().name.partition("#sha256=")[0], usual._replace(run=run)) for run in runs]
    for each in names:
        name, _, run = each.partition("=")
        require(bool(name and run), "--model", "be NAME=RUN", each)
        pairs.append((name, usual._replace(run=Path(run))))
    pairs += tables.items()
    require(bool(pairs), "RUN", "name at least one model", 0, "Add the folder of a run.")
    models: dict[str, ModelSettings] = {}
    for name, settings in pairs:
        require(name not in models, "RUN", "have a name of its own", name, "Name it otherwise: --model NAME=RUN.")
        models[name] = settings
    return models


def open_models(models: Mapping[str, ModelSettings], num_streams: int) -> dict[str, Recogniser]:
    """Opens models and runs each once for every shape that requests will use.

    Args:
        models: what to open.
        num_streams: streams that may be open at once, files that a model hears as streams included.

    Raises:
        InputError: a model cannot be opened.
    """
    opened = {}
    for name, settings in models.items():
        opened[name] = recogniser = Recogniser(settings.run, settings.decoding, settings.engine)
        warm(recogniser, num_streams)
    return opened


def warm(recogniser: Recogniser, num_streams: int) -> None:
    """Runs a model once, decoding included. One that is compiled is run for every shape."""
    rate = recogniser.config.features.sample_rate
    recogniser.transcribe(_noise(SHORTEST, rate), rate)
    if recogniser.compiles and recogniser.streams.steps:
        _warm_steps(recogniser, num_streams)
    elif recogniser.compiles:
        for seconds in _lengths():
            recogniser.piece_log_probs([_noise(seconds, rate)])
            if seconds * 2 <= BATCH_SECONDS:
                recogniser.piece_log_probs([_noise(seconds, rate)] * BATCH_SIZE)


def _warm_steps(recogniser: Recogniser, num_streams: int) -> None:
    """Makes room for so many streams, and steps of 1, 4, 16, ... of them; the engine compiles these sizes."""
    assert recogniser.streams.steps is not None
    samples = np.zeros(recogniser.streams.steps.samples, np.float32)
    streams = [recogniser.stream() for _ in range(num_streams)]
    number = 1
    while number < 4 * num_streams:
        recogniser.streams.feed(dict.fromkeys(streams[:number], samples))
        number *= 4
    for stream in streams:
        stream.close()


def _lengths() -> list[float]:
    """Lists the lengths to which pieces are padded, in seconds."""
    lengths = [SHORTEST]
    while lengths[-1] < max(WHOLE, LONGEST):
        lengths.append(lengths[-1] * GROWTH)
    return lengths


def _noise(seconds: float, rate: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.1, 0.1, int(seconds * rate)).astype(np.float32)

"""Reads the settings that a command works with: from --config or --run, with single fields changed."""

import dataclasses
from pathlib import Path
from typing import Literal

from ds2_jax.config import Config, load_config
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model
from ds2_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class AlphabetSettings:
    """Settings that replace those of --config or --run, with the same names as in training."""

    alphabet: str | None = None
    """Characters the model can write."""
    case: Literal["alphabet", "upper", "lower", "keep"] | None = None
    """Case that transcripts are converted to."""
    remove: str | None = None
    """Characters that transcripts may hold but the model does not write."""


@dataclasses.dataclass(frozen=True)
class DataSettings(AlphabetSettings):
    """Settings that replace those of --config or --run, with the same names as in training."""

    units: str | None = None
    """What a label stands for: characters, or the file of a SentencePiece model."""
    min_duration: float | None = None
    """Shortest utterance in seconds."""
    max_duration: float | None = None
    """Longest utterance in seconds."""
    on_bad_utterance: Literal["error", "skip"] | None = None
    """skip: training leaves out utterances that cannot be used, so they are only warnings here."""


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Settings that replace those of --config or --run, with the same names as in training."""

    sample_rate: int | None = None
    """Sample rate of the model in Hz."""


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Settings that replace those of --config or --run, with the same names as in training."""

    time_reduction: Literal[2, 4] | None = None
    """Input frames per output frame."""


def read_settings(
    config: Path | None, run: Path | None, **sections: AlphabetSettings | FeatureSettings | ModelSettings
) -> tuple[Config, str]:
    """Reads the settings of a command.

    Args:
        config: configuration file or name of a recipe, or None.
        run: folder of a run, or None.
        sections: sections of the settings, by name; their fields that are not None replace those of the file or run.

    Returns:
        The settings, and a text that says where they are from.

    Raises:
        InputError: both `config` and `run` are given, one of them cannot be read, or a value is wrong.
    """
    if config is not None and run is not None:
        raise InputError(f"--config must be left out if --run is given, got {config} and {run}. Remove one.")
    if run is not None:
        settings, source = read_config(find_model(run)), f"those of the run {run}"
    elif config is not None:
        settings, source = load_config(config), f"those of {config}"
    else:
        settings, source = Config(), "the defaults (give --config FILE or --run RUN for others)"
    changed: list[str] = []
    for section, values in sections.items():
        given = {name: value for name, value in vars(values).items() if value is not None}
        changed += [f"{section}.{name}" for name in given]
        settings = dataclasses.replace(settings, **{section: dataclasses.replace(getattr(settings, section), **given)})
    if changed:
        source += f", and {', '.join(changed)} as given"
    return settings, source

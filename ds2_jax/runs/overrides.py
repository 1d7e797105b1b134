"""The settings that a command works with: those of --config or --run, with single fields changed."""

import dataclasses
from pathlib import Path
from typing import Literal

from ds2_jax.config import Config, load_config
from ds2_jax.runs import run_folder
from ds2_jax.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class AlphabetSettings:
    """Settings in place of those of --config or --run, as in training."""

    alphabet: str | None = None
    """Characters the model can write."""
    case: Literal["alphabet", "upper", "lower", "keep"] | None = None
    """Case that transcripts are brought to."""
    remove: str | None = None
    """Characters that transcripts may hold and the model does not write."""


@dataclasses.dataclass(frozen=True)
class DataSettings(AlphabetSettings):
    """Settings in place of those of --config or --run, as in training."""

    min_duration: float | None = None
    """Seconds."""
    max_duration: float | None = None
    """Seconds."""
    on_bad_utterance: Literal["error", "skip"] | None = None
    """skip: training leaves out what cannot be used, so it is a warning here."""


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Settings in place of those of --config or --run, as in training."""

    sample_rate: int | None = None
    """Hz, of the model."""


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Settings in place of those of --config or --run, as in training."""

    time_reduction: Literal[2, 4] | None = None
    """Input frames for one output frame."""


def read_settings(
    config: Path | None, run: Path | None, **sections: AlphabetSettings | FeatureSettings | ModelSettings
) -> tuple[Config, str]:
    """The settings to check against, and where they are from.

    Args:
        config: configuration file, or None.
        run: folder of a run, or None.
        sections: of the settings, by name; what is not None in them comes before the rest.

    Raises:
        InputError: both a file and a run are named, one cannot be read, or a value is wrong.
    """
    if config is not None and run is not None:
        raise InputError(f"--config must be left out beside --run, got {config} and {run}. Remove one.")
    if run is not None:
        settings, source = run_folder.load_config(run), f"those of the run {run}"
    elif config is not None:
        settings, source = load_config(config), f"those of {config}"
    else:
        settings, source = Config(), "the defaults (--config FILE or --run RUN takes others)"
    changed: list[str] = []
    for section, values in sections.items():
        given = {name: value for name, value in vars(values).items() if value is not None}
        changed += [f"{section}.{name}" for name in given]
        settings = dataclasses.replace(settings, **{section: dataclasses.replace(getattr(settings, section), **given)})
    if changed:
        source += f", and {', '.join(changed)} as given"
    return settings, source

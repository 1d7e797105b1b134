"""The folder of a run: its configuration beside its checkpoints and results. It can be moved."""

import json
import shutil
from pathlib import Path
from typing import Any

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.errors import InputError

CONFIG = "config.json"

PLACES = {"data.root", "data.archive", "data.num_workers", "parallel"}
"""Settings that may change when a run goes on: they do not change what is learned."""


def open_run(folder: Path, config: Config, overwrite: bool) -> None:
    """Makes the folder of a run, or makes sure that it holds one with the same settings.

    Args:
        folder: of the run.
        config: all settings.
        overwrite: deletes a run that is there.

    Raises:
        InputError: the folder holds a run with other settings, or something that is no run.
    """
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir must be a folder, got {folder}, which is a file. Give another --workdir.")
    if folder.is_dir() and any(folder.iterdir()) and not path.exists():
        raise InputError(
            f"--workdir must be empty or hold a run, got {folder}, which has files but no {CONFIG}. "
            "Give another --workdir."
        )
    if path.exists() and overwrite:
        shutil.rmtree(folder)
    if path.exists():
        old, new = (json.loads(config_lib.to_json(settings)) for settings in (load_config(folder), config))
        differing = _differences(old, new)
        if differing:
            raise InputError(
                f"{folder} must be continued with its own settings, got others:\n  " + "\n  ".join(differing) + "\n"
                "Give another --workdir, or --overwrite to delete that run and start anew."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(config_lib.to_json(config) + "\n")


def load_config(folder: Path) -> Config:
    """The settings of the run in `folder`.

    Raises:
        InputError: there is none, or its configuration is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"RUN must be the folder of a training run, got {folder}, which has no {CONFIG}.")
    try:
        return config_lib.from_json(path.read_text())
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, value in old.items():
        field = prefix + name
        if isinstance(value, dict):
            lines += _differences(value, new[name], f"{field}.")
        elif value != new[name] and field not in PLACES:
            lines.append(f"{field}: {value} in the run, {new[name]} now")
    return lines

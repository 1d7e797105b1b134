"""The folder of a run: its configuration beside its checkpoints and results. It can be moved."""

import json
import shutil
from pathlib import Path
from typing import Any

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.errors import InputError
from ds2_jax.files import write_text, writing

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"

CONTENTS = (CHECKPOINTS, "tensorboard", "evaluations", "metrics.jsonl", "test.json*", "skipped_*.jsonl", CONFIG)
"""What `overwrite` deletes; a file of the user's own stays."""

PLACES = {
    *("data.root", "data.archive", "data.train", "data.dev", "data.test"),
    *("data.on_bad_utterance", "data.num_workers", "parallel"),
}
"""Settings that may change when a run goes on: they do not change what is learned. The checkpoints know the
utterances themselves, so manifests may move and must not change."""


def open_run(folder: Path, config: Config, overwrite: bool) -> None:
    """Makes the folder of a run, or makes sure that it holds one with the same settings.

    A run without a checkpoint has nothing to lose and takes new settings.

    Args:
        folder: of the run.
        config: all settings.
        overwrite: deletes a run that is there.

    Raises:
        InputError: the folder holds a run with other settings, or something that is no run, or cannot be written.
    """
    path = folder / CONFIG
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir must be a folder, got {folder}, which is a file. Give another --workdir.")
    if folder.is_dir() and any(folder.iterdir()) and not path.exists():
        raise InputError(
            f"--workdir must be empty or hold a run, got {folder}, which has files but no {CONFIG}. "
            "Give another --workdir."
        )
    if path.exists():
        old, new = (json.loads(config_lib.to_json(settings)) for settings in (load_config(folder), config))
        differing = _differences(old, new)
        if overwrite:
            _delete(folder)
        elif differing and _has_checkpoint(folder):
            raise InputError(
                f"{folder} must be continued with its own settings, got others:\n  " + "\n  ".join(differing) + "\n"
                "Give another --workdir, or --overwrite to delete that run and start anew."
            )
    write_text(path, config_lib.to_json(config) + "\n")


def load_config(folder: Path) -> Config:
    """The settings of the run in `folder`.

    Raises:
        InputError: there is none, or its configuration is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"RUN must be the folder of a training run, got {folder}, which has no {CONFIG}.")
    try:
        return config_lib.from_json(path.read_text(encoding="utf-8"))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error


def _has_checkpoint(folder: Path) -> bool:
    checkpoints = folder / CHECKPOINTS
    return checkpoints.is_dir() and any(path.name.isdecimal() for path in checkpoints.iterdir())


def _delete(folder: Path) -> None:
    with writing(folder):
        for path in (found for pattern in CONTENTS for found in folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, value in old.items():
        field = prefix + name
        if isinstance(value, dict):
            lines += _differences(value, new[name], f"{field}.")
        elif value != new[name] and field not in PLACES:
            lines.append(f"{field}: {value} in the run, {new[name]} now")
    return lines

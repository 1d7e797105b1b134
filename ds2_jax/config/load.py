"""Loads a configuration from a Python file, and converts it to and from JSON."""

import dataclasses
import json
import os
import runpy
from pathlib import Path

from ds2_jax.config.settings import Config
from ds2_jax.system.checks import build
from ds2_jax.system.errors import NO_JSON, InputError

PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = PACKAGE / "recipes"
"""Folder of the recipes in the wheel. In a clone of the repository they are in configs/."""


def load_config(path: Path) -> Config:
    """Runs a Python file and returns its `config`.

    Args:
        path: the path of the file, or the name of a recipe.

    Raises:
        InputError: the file does not exist, fails, or does not define `config: Config`, or a setting is wrong.
    """
    file = find_config(path)
    try:
        config = runpy.run_path(str(file)).get("config")
        if not isinstance(config, Config):
            raise InputError(f"`config` must be a ds2_jax.config.Config, got {config!r}. Define it in this file.")
        return config
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} must run without errors, got {type(error).__name__}: {error}. Correct it.") from error


def find_config(path: Path) -> Path:
    """Returns the file at `path`, or else the recipe with this name.

    Raises:
        InputError: neither exists.
    """
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        return path
    known = recipes()
    if (recipe := known.get(str(path))) is not None:
        return recipe
    exists, is_folder = os.path.exists(path), os.path.isdir(path)  # noqa: PTH110, PTH112 - the name may be too long
    finding = "is a folder" if is_folder else "is not a regular file" if exists else "does not exist"
    raise InputError(
        f"--config must name a configuration file, got {path}, which {finding}. Known recipes: {', '.join(known)}."
    )


def recipes() -> dict[str, Path]:
    """Lists the recipes that come with this package, by name."""
    folder = RECIPES if RECIPES.is_dir() else PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def to_json(config: Config) -> str:
    """Returns the whole configuration as indented JSON. Paths become strings."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=str, ensure_ascii=False)


def from_json(text: str) -> Config:
    """Reads a configuration that `to_json` wrote.

    Raises:
        InputError: the text is not JSON, a field is unknown or has the wrong type, or a value breaks a rule.
    """
    try:
        tree = json.loads(text)
    except NO_JSON as error:
        raise InputError(f"The configuration must be JSON, got {error}.") from error
    config = build(Config, tree, "")
    assert isinstance(config, Config)
    return config

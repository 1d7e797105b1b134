"""Settings of `serve` from a file and from environment variables.

The command line comes first, then the environment, then the file. Options of the file and of the environment are put
in front of the words of the command line, unless those name the same option.
"""

import argparse
import difflib
import inspect
import os
import shlex
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.system.checks import build, require
from ds2_jax.system.errors import InputError, shorten

PREFIX = "DS2_JAX_SERVE_"
"""The names of environment variables are this and the name of an option: DS2_JAX_SERVE_MAX_STREAMS."""
SETTINGS, MODEL = "settings", "model"
"""The option that names the file, and the tables of models in it."""
BY_POSITION = "runs"
TRUE, FALSE = ("true", "1"), ("false", "0")


class ModelSettings(NamedTuple):
    """A model to serve.

    Attributes:
        run: a trained run, or what `export` wrote.
        engine: what runs it, if it is chosen.
        decoding: how to decode.
    """

    run: Path
    engine: EngineName | None
    decoding: DecodingOptions


def more_words(command: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """Lists the options that the environment and the file give, as words of the command line.

    Args:
        command: the function whose parameters are the options.
        words: the words of the command line.

    Raises:
        InputError: the file cannot be read, or a setting is unknown or has a wrong type.
    """
    kinds = _kinds(command)
    given = {word[2:].partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    found = _from_environment(kinds)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{SETTINGS}", type=Path)
    path = parser.parse_known_args(words)[0].settings or found.get(SETTINGS)
    if path is not None:
        found = _from_file(path, kinds) | found
    return [word for name, value in found.items() if not {name, f"no-{name}"} & given for word in _words(name, value)]


def read_models(path: Path | None, usual: ModelSettings) -> dict[str, ModelSettings]:
    """Reads the tables [model.NAME] of a file of settings.

    Args:
        path: the file, if there is one.
        usual: engine and decoding options that count where a table has none.

    Raises:
        InputError: a setting is unknown or wrong.
    """
    tables = {} if path is None else _read(path).get(MODEL, {})
    require(isinstance(tables, dict), f"{path}: {MODEL}", "be tables [model.NAME]", tables)
    kinds = {"run": Path, "engine": EngineName | None, **_fields(DecodingOptions)}
    models = {}
    for name, table in tables.items():
        where = f"{path}: {MODEL}.{name}"
        require(isinstance(table, dict), where, "be a table", table, "Write [model.NAME], and run = FOLDER below it.")
        values = {key.replace("-", "_"): value for key, value in _checked(table, kinds, f"{where}.").items()}
        run, engine = values.pop("run", None), values.pop("engine", usual.engine)
        require(run is not None, f"{where}.run", "name a run", run)
        try:
            own = DecodingOptions(**{each: getattr(usual.decoding, each) for each in vars(usual.decoding)} | values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        models[name] = ModelSettings(run, engine, own)
    return models


def _kinds(command: Callable[..., Any]) -> dict[str, Any]:
    """Lists the types of a command's options by their names."""
    kinds: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(command).items():
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            kinds |= _fields(kind)
        elif name in inspect.signature(command).parameters and name != BY_POSITION:
            kinds[name.replace("_", "-")] = kind
    return kinds


def _fields(kind: type) -> dict[str, Any]:
    return {name.replace("_", "-"): each for name, each in typing.get_type_hints(kind).items()}


def _from_file(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: kind for name, kind in kinds.items() if name not in (SETTINGS, MODEL)}
    content = {name: value for name, value in _read(path).items() if name != MODEL}
    return _checked(content, options, f"{path}: ")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--{SETTINGS} must be a file, got {path}: {error.strerror}. Correct the path.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a TOML file, got: {shorten(str(error))}. Correct it.") from error


def _from_environment(kinds: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for variable, text in os.environ.items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower().replace("_", "-")
            _require_known(variable, name, kinds, lambda each: PREFIX + each.replace("-", "_").upper())
            found[name] = _checked_value(kinds[name], _parsed(kinds[name], text), variable)
    return found


def _parsed(kind: Any, text: str) -> Any:
    """Reads the value of an environment variable; one that is wrong stays a text."""
    kinds = typing.get_args(kind) or (kind,)
    if typing.get_origin(kind) is tuple:
        return shlex.split(text)
    if bool in kinds:
        return text.lower() in TRUE if text.lower() in TRUE + FALSE else text
    for each in (int, float):
        if each in kinds:
            try:
                return each(text)
            except ValueError:
                return text
    return text


def _checked(table: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks the names and types of settings; "_" in a name stands for "-"."""
    values = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        _require_known(f"{where}{shorten(key)}", name, kinds, str)
        values[name] = _checked_value(kinds[name], value, f"{where}{name}")
    return values


def _checked_value(kind: Any, value: Any, field: str) -> Any:
    if typing.get_origin(kind) is tuple:
        right = isinstance(value, list) and all(isinstance(each, str) for each in value)
        require(right, field, "be a list of texts", value)
        return tuple(value)
    return build(kind, value, field)


def _require_known(field: str, name: str, known: Iterable[str], shown: Callable[[str], str]) -> None:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"Did you mean {shown(near[0])}?" if near else "See serve --help."
    require(name in known, field, "be a known setting", name, guess)


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}={each}" for each in (value if isinstance(value, tuple) else (value,))]

"""Checks settings: converts each field to its type, and reports broken rules in a common form."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from ds2_jax.system.errors import InputError, shorten

UNPRINTABLE = re.compile("[\0\ud800-\udfff]")
"""The null character, which no path may contain, and surrogates, which UTF-8 cannot encode."""


def require(holds: bool, field: str, rule: str, value: object, advice: str = "") -> None:
    """Raises InputError in the project's form, "<field> must <rule>, got <value>. <advice>", unless `holds`."""
    if holds:
        return
    try:
        shown = shorten(repr(value))
    except RecursionError:  # JSON can be read at depths at which `repr` fails
        shown = f"a {type(value).__name__} that is nested too deeply"
    raise InputError(f"{field} must {rule}, got {shown}." + (f" {advice}" if advice else ""))


def check_fields(
    settings: Any, section: str = "", largest: int = 2**31 - 1, may_be_infinite: Collection[str] = ()
) -> None:
    """Converts each field to its type. Values from JSON are accepted: list for tuple, int for float, str for Path.

    Args:
        settings: a dataclass object in its `__post_init__`.
        section: prefix of its fields' names in messages.
        largest: the largest allowed integer.
        may_be_infinite: names of the fields that may be infinite, which means no limit.

    Raises:
        InputError: a field has another type, an integer is too large, or a float is not finite.
    """
    for name, kind in typing.get_type_hints(type(settings)).items():
        field = f"{section}{name}"
        value = build(kind, getattr(settings, name), f"{field}.")
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) is int:
                require(number <= largest, field, f"be at most {largest}", value)
            if isinstance(number, float) and name not in may_be_infinite:
                require(math.isfinite(number), field, "be finite", value)
        object.__setattr__(settings, name, value)  # a frozen dataclass allows no other assignment


def build(kind: Any, value: Any, where: str) -> Any:
    """Converts a value, from JSON or from a setting, to the annotation `kind`. `where` names the field in messages."""
    field = where.rstrip(".") or "The configuration"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if type(value) is kind:
            return value
        require(isinstance(value, dict), field, f"be an object ({kind.__name__})", value)
        known = typing.get_type_hints(kind)
        for name in value:
            require(
                name in known,
                f"{where}{shorten(name)}",
                "be a known setting",
                name,
                "Was the run made by a newer version?",
            )
        return kind(**value)  # `__post_init__` checks its fields
    if origin is Literal:
        right = any(value == each and type(value) is type(each) for each in arguments)
        require(right, field, f"be one of {', '.join(map(str, arguments))}", value)
        return value
    if origin in (typing.Union, types.UnionType):  # only `X | None` occurs
        return None if value is None else build(arguments[0], value, where)
    if origin is tuple:
        right = isinstance(value, list | tuple) and len(value) == len(arguments)
        require(right, field, f"be a list of {len(arguments)}", value)
        return tuple(build(each, item, where) for each, item in zip(arguments, value, strict=True))
    if kind is Path:
        require(isinstance(value, str | Path), field, "be a path", value)
        require(not UNPRINTABLE.search(str(value)), field, "be a path in UTF-8 without null characters", str(value))
        return Path(value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    require(type(value) is kind, field, f"be of type {kind.__name__}", value)
    return value

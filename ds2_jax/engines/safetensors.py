"""Weights in a .safetensors file, which holds arrays and texts, but no code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.system.errors import InputError, shorten


def to_bytes(variables: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Packs variables, with names such as "params.rnn_0.input_kernel.0", and metadata.

    Args:
        variables: a tree of mappings and sequences with NumPy arrays.
        metadata: texts.
    """
    from safetensors.numpy import save

    return save(dict(_flat(variables, "")), metadata=dict(metadata))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a .safetensors file.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        InputError: the file is missing, cut, damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        reason = shorten(str(error)).rstrip(".")
        raise InputError(f"{path} must hold weights as safetensors, got: {reason}. Export it again.") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a .safetensors file without its arrays; see `read`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        reason = shorten(str(error)).rstrip(".")
        raise InputError(f"{path} must hold weights as safetensors, got: {reason}. Export it again.") from error


def like(tree: Any, arrays: Mapping[str, np.ndarray], path: Path, prefix: str = "") -> Any:
    """Arranges arrays as a tree.

    Args:
        tree: mappings and tuples with shapes and types, such as `jax.eval_shape` gives.
        arrays: arrays by name.
        path: the file, for errors.
        prefix: what the names begin with.

    Raises:
        InputError: an array is missing, or has another shape or type.
    """
    if isinstance(tree, Mapping):
        return {name: like(each, arrays, path, f"{prefix}{name}.") for name, each in tree.items()}
    if isinstance(tree, tuple):
        return tuple(like(each, arrays, path, f"{prefix}{i}.") for i, each in enumerate(tree))
    name = prefix.removesuffix(".")
    found = arrays.get(name)
    got = "none" if found is None else f"{list(found.shape)} {found.dtype}"
    if found is None or found.shape != tree.shape or found.dtype != tree.dtype:
        raise InputError(
            f"{path} must hold {name} as {list(tree.shape)} {tree.dtype}, got {got}. Export the model again."
        )
    return found


def _flat(tree: Any, prefix: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, Mapping):
        return [pair for name, each in tree.items() for pair in _flat(each, f"{prefix}{name}.")]
    if isinstance(tree, list | tuple):
        return [pair for i, each in enumerate(tree) for pair in _flat(each, f"{prefix}{i}.")]
    return [(prefix.removesuffix("."), np.asarray(tree, order="C"))]


def as_tree(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arranges arrays by their names: parts between dots are keys, and numbers are places."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return {name: _with_sequences(each) for name, each in tree.items()}


def _with_sequences(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    inner = {name: _with_sequences(each) for name, each in tree.items()}
    if inner and all(name.isdecimal() for name in inner):
        return tuple(inner[name] for name in sorted(inner, key=int))
    return inner

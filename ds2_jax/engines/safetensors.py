"""Weights in a .safetensors file, which holds arrays and texts, but no code."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ds2_jax.system.errors import InputError, shorten

MAX_HEADER = 8 * 2**20
"""Bytes of names, shapes and metadata in a file, so that reading them takes a second at most. Ours take some 10,000."""


def to_bytes(variables: Mapping[str, Any], metadata: Mapping[str, str], *, float16: bool = False) -> bytes:
    """Packs variables, with names such as "params.rnn_0.input_kernel.0", and metadata.

    Args:
        variables: a tree of mappings and sequences with NumPy arrays.
        metadata: texts.
        float16: whether to store matrices and kernels in 16 bits; see `rounded`.
    """
    from safetensors.numpy import save

    arrays = dict(_flat(variables, ""))
    if float16:
        arrays = {name: array.astype(np.float16) if _is_kernel(array) else array for name, array in arrays.items()}
    return save(arrays, metadata=dict(metadata))


def rounded(array: np.ndarray) -> np.ndarray:
    """Rounds an array to what 16 bits hold. Vectors, such as variances, stay as they are.

    Raises:
        InputError: a weight is too large for 16 bits.
    """
    if not _is_kernel(array):
        return array
    with np.errstate(over="ignore"):
        found = array.astype(np.float16).astype(np.float32)
    if not np.isfinite(found).all():
        raise InputError(f"--float16 must have weights below 65,504, got {np.abs(array).max():g}. Leave it out.")
    return found


def _is_kernel(array: np.ndarray) -> bool:
    return array.ndim >= 2


def read(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """Reads weights from a .safetensors file.

    Args:
        path: the file.
        shapes: name and shape of each array. They are compared with the file's before an array is read, so that
            reading takes little more memory than the float32 arrays.

    Returns:
        The arrays, float32, as a tree: parts of a name between dots are keys, and numbers are places in tuples.

    Raises:
        InputError: the file is missing, cut, damaged, or of another format; or an array is missing, is not expected,
            has another shape or type, or holds NaN, infinity or a negative variance.
    """
    arrays: dict[str, np.ndarray] = {}
    with _opened(path) as file:
        others = set(file.keys())
        for name, shape in shapes:
            found = file.get_slice(name) if name in others else None
            got = "none" if found is None else f"{list(found.get_shape())} {found.get_dtype()}"
            if found is None or tuple(found.get_shape()) != shape or found.get_dtype() not in ("F32", "F16"):
                raise InputError(
                    f"{path} must hold {name} as {list(shape)} F32 or F16, got {got}. Export the model again."
                )
            others.remove(name)
            arrays[name] = file.get_tensor(name).astype(np.float32, copy=False)
    if others:
        raise InputError(
            f"{path} must hold the weights of its settings and no others, got {shorten(min(others))}. "
            "Export the model again."
        )
    for name, array in arrays.items():
        least = array.min() if array.size else 0.0
        if not np.isfinite(array).all() or (name.endswith(".var") and least < 0):
            rule = "numbers of 0 or more" if name.endswith(".var") else "finite numbers"
            raise InputError(f"{path} must hold {rule} in {name}, got others. Export the model again.")
    return as_tree(arrays)


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the metadata of a .safetensors file without its arrays.

    Raises:
        InputError: the file is missing, cut, damaged, or of another format.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a file, and turns what the library raises into an InputError that names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"a header of {size} bytes")
        with safe_open(path, framework="numpy") as opened:
            yield opened
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        reason = shorten(str(error)).rstrip(".")
        raise InputError(f"{path} must hold weights as safetensors, got: {reason}. Export it again.") from error


def _flat(tree: Any, prefix: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, Mapping):
        return [pair for name, each in tree.items() for pair in _flat(each, f"{prefix}{name}.")]
    if isinstance(tree, list | tuple):
        return [pair for i, each in enumerate(tree) for pair in _flat(each, f"{prefix}{i}.")]
    return [(prefix.removesuffix("."), np.asarray(tree, order="C"))]


def as_tree(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Makes a tree of arrays by name; see `read`."""
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

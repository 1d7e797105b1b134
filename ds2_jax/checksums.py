"""SHA-256 of the arrays of a tree, which tell a flipped bit."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def checksums(tree: Any) -> dict[str, str]:
    """SHA-256 of every array of a tree by its name: of its type, its shape and its bytes."""

    def checksum(leaf: Any) -> str:
        array = np.asarray(leaf)
        found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
        return found.hexdigest()

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
        return dict(zip(map(array_name, leaves), pool.map(checksum, (leaf for _, leaf in leaves)), strict=True))


def array_name(leaf: tuple[Any, Any]) -> str:
    """Of a leaf with its path: params.rnn_0.hidden_kernel."""
    return jax.tree_util.keystr(leaf[0], simple=True, separator=".")

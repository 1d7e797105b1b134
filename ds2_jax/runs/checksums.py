"""The arrays of a tree by name, and their SHA-256, which tells a flipped bit."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree, each by its path: params.rnn_0.hidden_kernel."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksums(tree: Any) -> dict[str, str]:
    """SHA-256 of every array of a tree by its name: of its type, its shape and its bytes."""

    def checksum(leaf: Any) -> str:
        array = np.asarray(leaf)
        found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
        return found.hexdigest()

    leaves = named_leaves(tree)
    with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
        return dict(zip(leaves, pool.map(checksum, leaves.values()), strict=True))

"""Names the arrays of a tree and computes their SHA-256, which reveals a flipped bit."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """Maps the path of every array of a tree, such as params.rnn_0.hidden_kernel, to the array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksums(tree: Any) -> dict[str, str]:
    """Maps the name of every array of a tree to the SHA-256 of its type, shape and bytes."""

    def checksum(leaf: Any) -> str:
        array = np.asarray(leaf)
        found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
        return found.hexdigest()

    leaves = named_leaves(tree)
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        return dict(zip(leaves, pool.map(checksum, leaves.values()), strict=True))

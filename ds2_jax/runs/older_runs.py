"""Converts checkpoints of older runs, in which one array of a recurrent layer held both directions.

Such an array was [D, ...], with D directions, and a hidden kernel was [D, H, G*H]. Now there is one array for each
direction, and a hidden kernel is transposed: [G*H, H].
"""

from typing import Any

import jax


def holds_joined_directions(stored: Any) -> bool:
    """Whether a tree of arrays, or of their shapes, has the old form."""
    layers = filter(_is_layer, jax.tree.leaves(stored, is_leaf=_is_layer))
    return any(hasattr(layer["hidden_kernel"], "shape") for layer in layers)


def joined(wanted: Any) -> Any:
    """Converts a tree of ShapeDtypeStruct to the old form."""
    return _of_each_layer(_joined, wanted)


def apart(restored: Any, wanted: Any) -> Any:
    """Converts a tree of the old form to the new one, on the devices of `wanted`, a tree of ShapeDtypeStruct."""
    places = jax.tree.map(lambda leaf: leaf.sharding, wanted)
    return jax.jit(lambda tree: _of_each_layer(_apart, tree), out_shardings=places)(restored)


def _is_layer(node: Any) -> bool:
    return isinstance(node, dict) and "hidden_kernel" in node


def _of_each_layer(change: Any, tree: Any) -> Any:
    """Changes the arrays of each recurrent layer, except its norm, in the weights and in the optimiser's state."""

    def of_node(node: Any) -> Any:
        if not _is_layer(node):
            return node
        return {name: value if name == "norm" else change(name, value) for name, value in node.items()}

    return jax.tree.map(of_node, tree, is_leaf=_is_layer)


def _joined(name: str, directions: tuple[jax.ShapeDtypeStruct, ...]) -> jax.ShapeDtypeStruct:
    first = directions[0]
    shape = first.shape[::-1] if name == "hidden_kernel" else first.shape
    return jax.ShapeDtypeStruct((len(directions), *shape), first.dtype, sharding=first.sharding)


def _apart(name: str, directions: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(each.T if name == "hidden_kernel" else each for each in directions)

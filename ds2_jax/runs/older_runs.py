"""Checkpoints from before a recurrent layer kept one array for each direction: they are read as what they now would be.

Then an array held both directions ([D, ...]), and a hidden kernel was [D, H, G*H], across what `lstm.RecurrentWeights`
holds now.
"""

from typing import Any

import jax


def holds_joined_directions(stored: Any) -> bool:
    """Whether a tree of arrays, or of what describes them, is of that time."""
    layers = filter(_is_layer, jax.tree.leaves(stored, is_leaf=_is_layer))
    return any(hasattr(layer["hidden_kernel"], "shape") for layer in layers)


def joined(wanted: Any) -> Any:
    """The tree of that time which holds what a tree of ShapeDtypeStruct does now."""
    return _of_each_layer(_joined, wanted)


def apart(restored: Any, wanted: Any) -> Any:
    """A tree of that time as one of now, on the devices of `wanted`, a tree of ShapeDtypeStruct."""
    places = jax.tree.map(lambda leaf: leaf.sharding, wanted)
    return jax.jit(lambda tree: _of_each_layer(_apart, tree), out_shardings=places)(restored)


def _is_layer(node: Any) -> bool:
    return isinstance(node, dict) and "hidden_kernel" in node


def _of_each_layer(change: Any, tree: Any) -> Any:
    """Changes every array but a norm's of each recurrent layer, in the weights and in what optimisers keep of them."""

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

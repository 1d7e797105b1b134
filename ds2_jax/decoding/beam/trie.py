"""Cuts the trie of a beam search, so that its size does not grow with the length of an utterance.

A frame only adds labels to the ends of active prefixes. So no later frame can change what all active prefixes begin
with, their deepest common ancestor in the trie. It becomes the root. Two prefixes of almost equal scores can stay
active for ever, so those that part from the best one long before its end are dropped.
"""

import numpy as np

from ds2_jax.system.numba_cache import kernel


@kernel()
def common_ancestor(actives: np.ndarray, nodes: np.ndarray) -> int:
    """Returns the longest prefix with which all active prefixes begin, as a node; the root if none is active."""
    if len(actives) == 0:
        return 0
    ancestor = actives[0].node
    for slot in range(1, len(actives)):
        other = actives[slot].node
        while ancestor != other:
            if ancestor > other:  # then it is not an ancestor of the other: parents have lower indices
                ancestor = int(nodes[ancestor].parent)
            else:
                other = int(nodes[other].parent)
    return int(ancestor)


@kernel()
def cut(root: int, actives: np.ndarray, nodes: np.ndarray, count: int) -> int:
    """Makes the common ancestor of the active nodes the root. Drops all nodes that are not between it and them.

    The nodes keep their order: parents come before their children.

    Args:
        root: the common ancestor.
        actives: the active nodes, at least one. Their indices change.
        nodes: the trie, changed in place.
        count: number of nodes.

    Returns:
        The number of nodes left.
    """
    places = np.full(count, -1, np.int64)  # 0 marks a node to keep; later its new index
    places[root] = 0
    for slot in range(len(actives)):
        places[actives[slot].node] = 0
    for index in range(count - 1, root, -1):
        if places[index] >= 0:
            places[nodes[index].parent] = 0
    kept = 0
    for index in range(root, count):
        if places[index] >= 0:
            places[index] = kept
            nodes[kept] = nodes[index]
            node = nodes[kept]
            node.child = node.sibling = -1
            if kept == 0:
                node.parent = -1
            else:
                parent = nodes[places[node.parent]]
                node.parent = places[node.parent]
                node.sibling, parent.child = parent.child, kept
            kept += 1
    for slot in range(len(actives)):
        actives[slot].node = places[actives[slot].node]
    return kept


@kernel()
def drop_rivals(best: int, actives: np.ndarray, nodes: np.ndarray, distance: int) -> int:
    """Drops the active nodes whose prefixes do not begin with the best one's labels before its last `distance` labels.

    Args:
        best: the best active node.
        actives: the active nodes, changed in place.
        nodes: the trie, changed in place.
        distance: a number of labels.

    Returns:
        The number of active nodes left.
    """
    fork = best
    for _ in range(distance):
        if nodes[fork].parent < 0:
            return len(actives)
        fork = int(nodes[fork].parent)
    left = 0
    for slot in range(len(actives)):
        index = actives[slot].node
        above = index
        while above > fork:
            above = int(nodes[above].parent)
        nodes[index].slot = -1
        if above == fork:
            actives[left] = actives[slot]
            nodes[index].slot = left
            left += 1
    return left

"""Reads the results of a beam search from its trie."""

import numpy as np

from ds2_jax.decoding.beam.arrays import SPACE, Spelling
from ds2_jax.system.numba_cache import kernel


@kernel()
def labels_of(index: int, nodes: np.ndarray) -> np.ndarray:
    """Returns the labels of a node after those of the root, [N] int32."""
    count, above = 0, index
    while nodes[above].parent >= 0:
        count, above = count + 1, int(nodes[above].parent)
    labels = np.empty(count, np.int32)
    for place in range(count - 1, -1, -1):
        labels[place], index = nodes[index].label, int(nodes[index].parent)
    return labels


@kernel()
def text_of(index: int, nodes: np.ndarray, spelling: Spelling, spaced: bool) -> np.ndarray:
    """Returns the letters of a node after those of the root, with SPACE between words, [N] int32.

    Repeated spaces and spaces at the ends of the text do not show.
    """
    labels = labels_of(index, nodes)
    size = 0
    for label in labels:
        size += spelling.starts[label + 1] - spelling.starts[label] + 1
    text, count = np.empty(size, np.int32), 0
    root = nodes[0].label
    may_part = root >= 0 and spelling.starts[root + 1] > spelling.starts[root]  # whether a space would show
    for label in labels:
        if spaced and spelling.begins[label] and may_part:
            text[count] = SPACE
            count += 1
            may_part = False
        for place in range(spelling.starts[label], spelling.starts[label + 1]):
            text[count] = spelling.letters[place]
            count += 1
            may_part = True
    if count > 0 and text[count - 1] == SPACE:
        count -= 1
    return text[:count]


@kernel()
def finals(actives: np.ndarray, nodes: np.ndarray, awards: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Computes the word scores of the active nodes at the end of an utterance. All words must have a score.

    Returns:
        Scores in nats, [A] float64, -inf for nodes that a closed vocabulary forbids; and the language model's states
        after the last words, [A] int64.
    """
    scores, states = np.empty(len(actives)), np.empty(len(actives), np.int64)
    for slot in range(len(actives)):
        node = nodes[actives[slot].node]
        scores[slot], states[slot] = node.settled, node.state
        if node.length > 0:
            scores[slot] += node.word_score + awards[node.hot]
            states[slot] = node.word_state
            if closed and node.word < 0:
                scores[slot] = -np.inf
    return scores, states


@kernel()
def best_node(actives: np.ndarray, nodes: np.ndarray, spaced: bool) -> int:
    """Returns the active node that ranks best in the beam, the first of equal ones; the root if none is active."""
    best, largest = 0, -np.inf
    for slot in range(len(actives)):
        node = nodes[actives[slot].node]
        score = actives[slot].total + node.settled + node.pending
        if not spaced:
            score += node.word_score
        if score > largest:
            best, largest = actives[slot].node, score
    return best

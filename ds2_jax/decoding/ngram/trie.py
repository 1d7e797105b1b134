"""Back-off n-gram models as a trie in a few arrays, with compiled inner loops.

Node 0 is the root, the empty n-gram. Node 1 + w is word w. The longer n-grams follow, order by order. Each order is
sorted by the node of all words but the last, then by the last word. So the children of a node, the n-grams that are one
word longer, are contiguous, and bisection finds them. Pruning can leave an n-gram in a file without the n-gram's
beginning. The beginning then has a node too, with the probability that backing off gives it and no back-off weight.

A state summarises the words so far. It is the node of the longest context that can still matter, that is, one with
children or with a back-off weight. So contexts that give all future words the same scores share a state, as in KenLM.
"""

from typing import NamedTuple

import numpy as np

from ds2_jax.decoding.ngram.arpa import ADVICE, Arpa
from ds2_jax.system.checks import require
from ds2_jax.system.numba_cache import kernel


class NGramArrays(NamedTuple):
    """A trie of M nodes; the n-grams of the first S are shorter than the model's order. See the module's docstring.

    Attributes:
        words: [M] int32, the last word of each node; -1 for the root.
        log10: [M] float32, log10 probability of the last word after the others.
        next_state: [M] int32, the state after the node's words.
        first_child: [S + 1] int32, the node's first child. Its children end before the first child of the next node.
        backoffs: [S] float32, log10 of the back-off weight.
        shorter: [S] int32, the state after the node's words without the first: backing off goes there.
    """

    words: np.ndarray
    log10: np.ndarray
    next_state: np.ndarray
    first_child: np.ndarray
    backoffs: np.ndarray
    shorter: np.ndarray


@kernel()
def next_word(arrays: NGramArrays, state: int, word: int) -> tuple[float, int]:
    """Returns the log10 probability of a word after a state, and the state after the word."""
    node, weight = find(arrays, state, word)
    return weight + arrays.log10[node], arrays.next_state[node]


@kernel()
def find(arrays: NGramArrays, state: int, word: int) -> tuple[int, float]:
    """Finds the model's longest n-gram of a word after the end of a context, and sums the back-off weights.

    Args:
        arrays: the model.
        state: the state after the context; 0 for no words.
        word: a word's id.

    Returns:
        The n-gram's node, and the sum of the log10 back-off weights.
    """
    weight = 0.0
    while state != 0:
        low = arrays.first_child[state]
        high = arrays.first_child[state + 1]
        end = high
        while low < high:
            middle = (low + high) >> 1
            if arrays.words[middle] < word:
                low = middle + 1
            else:
                high = middle
        if low < end and arrays.words[low] == word:
            return low, weight
        weight += arrays.backoffs[state]
        state = arrays.shorter[state]
    return 1 + word, weight


@kernel()
def find_all(arrays: NGramArrays, state: int, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calls `find` for each of N words in turn. Returns nodes [N] int64 and log10 probabilities [N] float64."""
    nodes = np.empty(len(words), np.int64)
    log10 = np.empty(len(words), np.float64)
    for index in range(len(words)):
        node, weight = find(arrays, state, words[index])
        nodes[index] = node
        log10[index] = weight + arrays.log10[node]
        state = arrays.next_state[node]
    return nodes, log10


def build(arpa: Arpa) -> tuple[NGramArrays, np.ndarray]:
    """Builds a model's trie.

    Returns:
        The trie, and [order + 1] int64: the first node of each order, then the number of nodes.

    Raises:
        InputError: an n-gram is listed twice.
    """
    orders = arpa.orders
    num_words = len(orders[0].log10)
    starts = [1, 1 + num_words]
    words = [np.array([-1], np.int32), np.arange(num_words, dtype=np.int32)]
    log10 = [np.zeros(1, np.float32), orders[0].log10]
    backoffs = [np.zeros(1, np.float32), orders[0].backoffs]
    parents = [np.zeros(1 + num_words, np.int32)]
    first_child = [np.ones(1, np.int32)]
    nodes = [1 + order.words[:, 0] for order in orders[1:]]  # of each longer n-gram: the node of its first words
    for depth, own in enumerate(orders[1:], start=2):
        keys = [
            (node.astype(np.int64) << 32) | order.words[:, depth - 1]
            for node, order in zip(nodes, orders[depth - 1 :], strict=True)
        ]
        sorted_keys = np.unique(np.concatenate(keys))
        places = [np.searchsorted(sorted_keys, each) for each in keys]
        _check_once(arpa, depth, places[0])
        for values, stored, unlisted in ((log10, own.log10, np.nan), (backoffs, own.backoffs, 0)):
            values.append(np.full(len(sorted_keys), unlisted, np.float32))
            values[-1][places[0]] = stored
        words.append((sorted_keys & 0xFFFFFFFF).astype(np.int32))
        parents.append((sorted_keys >> 32).astype(np.int32))
        first_child.append((starts[-1] + np.searchsorted(parents[-1], np.arange(*starts[-2:]))).astype(np.int32))
        nodes = [starts[-1] + place for place in places[1:]]
        starts.append(starts[-1] + len(sorted_keys))
    arrays = NGramArrays(
        words=np.concatenate(words),
        log10=np.concatenate(log10),
        next_state=np.zeros(starts[-1], np.int32),
        first_child=np.concatenate([*first_child, np.array([starts[-1]], np.int32)]),
        backoffs=np.concatenate(backoffs)[: starts[-2]],
        shorter=np.zeros(starts[-2], np.int32),
    )
    _link(arrays, np.concatenate(parents))
    return arrays, np.array(starts, np.int64)


def _check_once(arpa: Arpa, order: int, nodes: np.ndarray) -> None:
    """Raises InputError if the file lists an n-gram twice, so that two n-grams of an order have the same node."""
    counts = np.bincount(nodes, minlength=1)
    if counts.max() > 1:
        ids = arpa.orders[order - 1].words[np.argmax(counts[nodes] > 1)]
        require(False, str(arpa.path), "list each n-gram once", " ".join(arpa.words[each] for each in ids), ADVICE)


@kernel()
def _link(arrays: NGramArrays, parents: np.ndarray) -> None:
    """Fills `shorter` and `next_state`, and replaces NaN, the probability of nodes that the file does not list.

    Each value depends only on shorter n-grams, whose nodes come first.
    """
    num_states = len(arrays.backoffs)
    for node in range(1, len(arrays.words)):
        shorter = 0
        parent = parents[node]
        if parent != 0:
            found, weight = find(arrays, arrays.shorter[parent], arrays.words[node])
            shorter = arrays.next_state[found]
            if np.isnan(arrays.log10[node]):
                arrays.log10[node] = arrays.backoffs[parent] + weight + arrays.log10[found]
        arrays.next_state[node] = shorter
        if node < num_states:
            arrays.shorter[node] = shorter
            if arrays.first_child[node + 1] > arrays.first_child[node] or arrays.backoffs[node] != 0:
                arrays.next_state[node] = node


@kernel()
def next_words(arrays: NGramArrays, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Calls `next_word` for each of N states and words. Returns log10 [N] float64 and states [N] int64."""
    log10, following = np.empty(len(words), np.float64), np.empty(len(words), np.int64)
    for index in range(len(words)):
        log10[index], following[index] = next_word(arrays, states[index], words[index])
    return log10, following

"""The record types of beam search."""

import numpy as np

NODE = np.dtype(
    [
        ("parent", np.int32),  # -1: none. Node 0 is the root
        ("label", np.int32),  # -1: none, in the empty prefix
        ("child", np.int32),  # the node's first child, -1: none
        ("sibling", np.int32),  # the next child of the node's parent, -1: none
        ("slot", np.int32),  # the node's index among the active nodes, -1: not active
        ("length", np.int32),  # number of labels in the prefix's last word, 0 after a space
        ("low", np.int32),  # words low to high - 1 of the vocabulary begin with the labels of the last word
        ("high", np.int32),
        ("word", np.int32),  # the vocabulary's word with exactly these labels, -1: none
        ("hot", np.int32),  # state of the hot words' automaton
        ("state", np.int64),  # state of the language model before the last word
        ("word_state", np.int64),  # state of the language model after the last word
        ("word_score", np.float64),  # nats of the last word; NaN: no score yet
        ("settled", np.float64),  # nats of the words before the last word
        ("pending", np.float64),  # provisional nats of the last word, dropped when the word is complete
    ],
    align=True,
)
ACTIVE = np.dtype([("node", np.int64), ("blank", np.float64), ("label", np.float64), ("total", np.float64)])
"""An active node and three log-probabilities of its prefix: of all alignments that end in blank, of all that end in its
label, and of both together."""
CANDIDATE = np.dtype(
    [("slot", np.int32), ("added", np.int32), ("blank", np.float64), ("label", np.float64), ("total", np.float64)]
)
"""A candidate for the next frame: an active node itself (added -1), or the node with the label `added` appended."""

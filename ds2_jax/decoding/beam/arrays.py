"""The records that beam search works on."""

import numpy as np

NODE = np.dtype(
    [
        ("parent", np.int32),  # -1: none. Node 0 is the root, the empty prefix
        ("label", np.int32),
        ("child", np.int32),  # the first of its children, -1: none
        ("sibling", np.int32),  # the next child of its parent, -1: none
        ("slot", np.int32),  # its place among the active ones, -1: not active
        ("length", np.int32),  # labels of the word that it ends in, 0 behind a space
        ("low", np.int32),  # the words that begin with these labels are low to high - 1 of the vocabulary
        ("high", np.int32),
        ("word", np.int32),  # that which these labels are, -1: none
        ("hot", np.int32),  # state of the hot words' automaton
        ("state", np.int64),  # of the language model before the word that it ends in
        ("word_state", np.int64),  # and behind it
        ("word_score", np.float64),  # nats, of the word that it ends in; NaN: not asked for yet
        ("settled", np.float64),  # nats, of the words before
        ("pending", np.float64),  # nats, of what has been said of the last word, taken back where it is complete
    ],
    align=True,
)
ACTIVE = np.dtype([("node", np.int64), ("blank", np.float64), ("label", np.float64), ("total", np.float64)])
"""An active node with its log probabilities: last frame blank, last frame its label, both."""
CANDIDATE = np.dtype(
    [("slot", np.int32), ("added", np.int32), ("blank", np.float64), ("label", np.float64), ("total", np.float64)]
)
"""What an active node may become with the next frame: itself (added -1) or itself with a label behind it."""

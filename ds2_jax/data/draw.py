"""Draws speakers or utterances by a hash, so that a draw depends on no random generator and little on other names."""

import hashlib
from collections.abc import Iterable


def drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """Orders the distinct names by a hash of the seed and the name."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())

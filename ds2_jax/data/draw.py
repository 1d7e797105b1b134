"""Draws among speakers or utterances that depend on no library's generator, and little on who else is there."""

import hashlib
from collections.abc import Iterable


def drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """The names, each once, in an order that is drawn by a hash of the seed and the name."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())

"""Counts the programs that this process compiles or takes from the compilation cache."""

import collections
from typing import Any

import jax

BUILT, FROM_CACHE = "/jax/core/compile/backend_compile_duration", "/jax/compilation_cache/cache_hits"
"""JAX's events: a program was compiled or taken from the cache; it was taken from the cache."""


class Programs:
    """Listens from its making on; one for each process, as JAX keeps listeners for good."""

    def __init__(self) -> None:
        self._events: collections.Counter[str] = collections.Counter()
        jax.monitoring.register_event_listener(self._count)
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def take(self) -> dict[str, int]:
        """Programs compiled and programs found in the cache since the last call."""
        counts = {
            "compiled": self._events[BUILT] - self._events[FROM_CACHE],
            "from_cache": self._events[FROM_CACHE],
        }
        self._events.clear()
        return counts

    def _count(self, event: str, *_: Any, **__: Any) -> None:
        self._events[event] += 1

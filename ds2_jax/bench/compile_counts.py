"""Counts the programs that this process compiles or loads from the compilation cache."""

import collections
from typing import Any

import jax

BUILT, FROM_CACHE = "/jax/core/compile/backend_compile_duration", "/jax/compilation_cache/cache_hits"
"""JAX's events: a program was compiled or loaded from the cache; a program was loaded from the cache."""


class Programs:
    """Counts the programs since its creation. Create only one in a process, because JAX never removes listeners."""

    def __init__(self) -> None:
        self._events: collections.Counter[str] = collections.Counter()
        jax.monitoring.register_event_listener(self._count)
        jax.monitoring.register_event_duration_secs_listener(self._count)

    def take(self) -> dict[str, int]:
        """Returns the numbers of programs compiled and loaded from the cache since the last call."""
        counts = {
            "compiled": self._events[BUILT] - self._events[FROM_CACHE],
            "from_cache": self._events[FROM_CACHE],
        }
        self._events.clear()
        return counts

    def _count(self, event: str, *_: Any, **__: Any) -> None:
        self._events[event] += 1

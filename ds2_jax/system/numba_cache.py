"""Numba's decorator for inner loops, with a cache in a folder that only the user can write.

By default Numba stores native code and pickles in `__pycache__` next to the source. Anybody who can write to a shared
folder could put code there for others to run. NUMBA_CACHE_DIR keeps its meaning.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from ds2_jax.system.caches import cache_folder
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

F = TypeVar("F", bound=Callable[..., Any])
SETTINGS: Any = numba.config
"""Numba's settings, which have no types."""


def kernel(**options: Any) -> Callable[[F], F]:
    """Decorates with `numba.njit(**options)`, with a cache if there is a usable folder."""
    return cast(Callable[[F], F], numba.njit(cache=_finds_folder(), **options))


@functools.cache
def _finds_folder() -> bool:
    """Sets the cache folder, which Numba reads when it decorates a function.

    Without a usable folder it warns once and returns False.
    """
    if SETTINGS.CACHE_DIR:
        return True
    try:
        SETTINGS.CACHE_DIR = str(cache_folder("numba"))
    except (OSError, RuntimeError, InputError) as error:  # RuntimeError: the user has no home
        reason = str(error).rstrip(".")
        logger.warning(f"compiling inner loops without a cache: {reason}. Set NUMBA_CACHE_DIR to another folder.")
    return bool(SETTINGS.CACHE_DIR)

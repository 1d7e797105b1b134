"""Numba's decorator for inner loops, with a cache of what it compiles in a folder that is the user's alone.

Numba's own choice is `__pycache__` beside the source: native code and pickles, which whoever may write to a shared
folder could put there for others to run. NUMBA_CACHE_DIR keeps its meaning.
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
"""Numba's; it has no types."""


def kernel(**options: Any) -> Callable[[F], F]:
    """`numba.njit(**options)`, cached where a folder can be had."""
    return cast(Callable[[F], F], numba.njit(cache=_finds_folder(), **options))


@functools.cache
def _finds_folder() -> bool:
    """Names the folder to Numba, which asks for it where a function is decorated; without one, says so once."""
    if SETTINGS.CACHE_DIR:
        return True
    try:
        SETTINGS.CACHE_DIR = str(cache_folder("numba"))
    except (OSError, RuntimeError, InputError) as error:  # RuntimeError: the user has no home
        reason = str(error).rstrip(".")
        logger.warning(f"compiling inner loops without a cache: {reason}. NUMBA_CACHE_DIR may name another.")
    return bool(SETTINGS.CACHE_DIR)

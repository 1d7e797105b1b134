"""Explains that JAX does not find the platform that JAX_PLATFORMS names. Importing this module does not load JAX."""

import contextlib
import os
import sys
from collections.abc import Iterator

from ds2_jax.system.errors import InputError


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns the error of the body into an InputError if JAX cannot start the platform that JAX_PLATFORMS names.

    JAX has no error of its own for that, and may remove its frames from the traceback. So JAX is asked again.

    Raises:
        InputError: JAX does not find the platform.
    """
    try:
        yield
    except (RuntimeError, AssertionError):
        _check()
        raise


def _check() -> None:
    jax, named = sys.modules.get("jax"), os.environ.get("JAX_PLATFORMS")
    if jax is None or not named:
        return
    try:
        jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0].rstrip(".") or "JAX has no plug-in for it"
        raise InputError(
            f"JAX_PLATFORMS must name what JAX finds here, got {named!r}: {reason}. Unset it, or install JAX for this "
            "platform."
        ) from error

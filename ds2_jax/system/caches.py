"""The user's cache folder, which nobody else may write."""

import os
import stat
from pathlib import Path

from ds2_jax.system.errors import InputError


def user_cache() -> Path:
    """Returns the user's cache folder, XDG_CACHE_HOME or ~/.cache. A relative XDG_CACHE_HOME is ignored, as XDG says.

    Raises:
        RuntimeError: the user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def private_folder(path: Path) -> Path:
    """Makes a folder that only the user may read or write. An existing folder is checked, and closed to others.

    Its contents, such as compiled code, can then be trusted like the user's own files.

    Raises:
        InputError: somebody else could have written to the folder.
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # on Windows other users cannot read a user's folders
        return path
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid() or mode & (stat.S_IWGRP | stat.S_IWOTH):
        rule = "belong to you and be writable by nobody else"
        raise InputError(f"{path} must {rule}, got owner {status.st_uid} and mode {mode:o}.")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        path.chmod(stat.S_IRWXU)
    return path


def cache_folder(name: str) -> Path:
    """Makes this project's cache `name`, a private folder in `user_cache`. Raises the errors of both functions."""
    return private_folder(private_folder(user_cache() / "ds2_jax") / name)

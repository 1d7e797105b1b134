"""The user's folder for what can be made again, kept from everybody else."""

import os
import stat
from pathlib import Path

from ds2_jax.system.errors import InputError


def user_cache() -> Path:
    """The user's folder for what can be made again; a relative one does not count (XDG base directories).

    Raises:
        RuntimeError: the user has no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def private_folder(path: Path) -> Path:
    """Makes a folder that only the user may read or write; sees to it that one that is there is so.

    What lies in it, code or what stands for it, can then be believed as much as the user's own files.

    Raises:
        InputError: somebody else could have written to it.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders to the user
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
    """This project's cache `name`, a private folder below `user_cache`; raises as both do."""
    return private_folder(private_folder(user_cache() / "ds2_jax") / name)

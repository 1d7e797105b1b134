"""Detects damaged checkpoints: checks metadata and digests of arrays, and classifies errors of reading."""

import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ds2_jax.system.errors import InputError

NUM_EXAMPLES = 3
REASON_LENGTH = 300
DAMAGED = ".damaged"
META_SUM = "sha256_of_this"
OS_ERROR = re.compile(r"os_error_code='(\d+)'")
"""Matches the system's error number in TensorStore's messages."""


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads the metadata of a step: settings, digest of the utterances, digests of the arrays.

    Raises:
        DamagedCheckpointError: the metadata differs from what was saved.
        InputError: the system cannot read the metadata at present.
    """
    try:
        meta = json.loads((folder / "meta/metadata").read_text(encoding="utf-8"))
        sections = meta["settings"], meta.get("sha256", {})
        if not all(isinstance(section, dict) for section in sections) or "utterances" not in meta:
            raise TypeError("settings, digests or utterances are missing or of the wrong type")
        if meta.pop(META_SUM, None) not in (None, _sum(meta)):  # older runs have none
            raise ValueError("other settings, digests or utterances than were saved")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise read_error(folder, error) from error
    return dict(meta)


def with_sum(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the digest of the metadata to the metadata of a step."""
    return {**meta, META_SUM: _sum(meta)}


def _sum(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def check_sums(folder: Path, meta: Mapping[str, Any], restored: Any) -> None:
    """Raises DamagedCheckpointError if an array differs from the one that was saved."""
    from ds2_jax.runs.checksums import checksums  # this import loads JAX

    saved = meta.get("sha256")
    if saved is None:  # older runs have none
        return
    if changed := [name for name, digest in checksums(restored).items() if saved.get(name) != digest]:
        names = ", ".join(changed[:NUM_EXAMPLES]) + (" ..." if len(changed) > NUM_EXAMPLES else "")
        raise DamagedCheckpointError(folder, f"other bytes than were saved in {len(changed)} arrays: {names}")


def move_aside(folder: Path) -> Path:
    """Renames the folder of a damaged step, so that you can inspect it and training can write a new one."""
    for number in itertools.count():
        aside = folder.with_name(f"{folder.name}{DAMAGED}{number or ''}")
        if not aside.exists():
            return folder.rename(aside)
    raise AssertionError("unreachable")


class DamagedCheckpointError(InputError):
    """A checkpoint cannot be read, or its bytes differ from those that were saved.

    Attributes:
        folder: folder of the step.
        finding: the error text without advice.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder = folder
        self.finding = f"{folder} must be an undamaged checkpoint, got: {reason}."
        super().__init__(f"{self.finding} Delete this folder to use the checkpoint before it.")


def read_error(folder: Path, error: Exception) -> InputError:
    """Makes the error for a failed read: DamagedCheckpointError, unless the system refuses the read at present."""
    number = error.errno if isinstance(error, OSError) else None
    if found := OS_ERROR.search(str(error)):
        number = int(found[1])
    if number in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return DamagedCheckpointError(folder, reason_of(error))
    return InputError(f"{folder} must be readable, got: {reason_of(error)}. Correct this and try again.")


def reason_of(error: Exception) -> str:
    """Returns the system's message, or the end of an error's text: Orbax and TensorStore put a long history first."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := OS_ERROR.search(str(error)):
        return os.strerror(int(found[1]))
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__} {lines[-1][-REASON_LENGTH:]}".strip()

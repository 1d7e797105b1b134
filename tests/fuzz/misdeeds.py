"""Fuzz target that breaks the rules on purpose: a worker and its parent must notice."""

import importlib
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

from ds2_jax.system.errors import InputError
from tests.fuzz.target import PAYLOADS, PICKLE, Target, accepted


def _refuse_without_a_name() -> None:
    raise InputError("It must be accepted.")


def _misbehave(path: Path) -> None:
    """Breaks one of the rules or limits."""
    what = path.read_text()
    match what:
        case "refuse":
            raise InputError(f"{path} must be accepted, got {what}.")
        case "crash":
            os.abort()
        case "hang":
            while True:
                time.sleep(1)
        case "fail":
            raise ValueError(what)
        case "refuse without a name":
            accepted(path, _refuse_without_a_name)
        case "grow":
            assert len(bytearray(b"\1") * (300 * 2**20)) > 0
        case "ask for too much":
            bytearray(3 * 2**30)
        case "write outside":
            (path.parent.parent / "left").touch()
        case "unpickle":
            pickle.loads(PICKLE)
        case "start a program":
            subprocess.run(["true"], check=True)
        case "execute":
            exec(compile(PAYLOADS[-1], path, "exec"), {})  # noqa: S102 - the misdeed itself
        case "import":
            (path.parent / "planted.py").write_bytes(b"")
            sys.path.insert(0, str(path.parent))
            importlib.import_module("planted")


MISDEEDS = (
    *("refuse", "crash", "hang", "fail", "refuse without a name", "grow", "ask for too much", "write outside"),
    *("unpickle", "start a program", "execute", "import"),
)
SELF_TEST = {"misdeeds": Target("a", lambda: [b"accept"], _misbehave, lambda: [each.encode() for each in MISDEEDS])}

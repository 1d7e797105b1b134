"""The name of the program that the user called, for usage texts and messages with commands, and its version."""

import shlex
import sys
from pathlib import Path

VERSION = "0.1.0"


def program() -> str:
    """Returns the beginning of the command line: `python main.py`, `python -m ds2_jax` or `ds2-jax`."""
    called = Path(sys.argv[0])
    if called.stem == "ds2-jax":
        return "ds2-jax"
    return "python -m ds2_jax" if called.parent.name == "ds2_jax" else "python main.py"


def command(*words: object) -> str:
    """Makes a command line that the user can paste into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"

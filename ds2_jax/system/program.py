"""What the user called, for the usage and for messages that name a command."""

import shlex
import sys
from pathlib import Path


def program() -> str:
    """The beginning of a command line: `python main.py`, `python -m ds2_jax` or `ds2-jax`."""
    called = Path(sys.argv[0])
    if called.stem == "ds2-jax":
        return "ds2-jax"
    return "python -m ds2_jax" if called.parent.name == "ds2_jax" else "python main.py"


def command(*words: object) -> str:
    """A command line to paste into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"

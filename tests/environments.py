"""Environments of their own for other programs, and the examples of the documents that run in them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import NO_NPM, NO_PYTHON312, ROOT


def called(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Runs a program and returns what it prints, with single spaces."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def install_python(folder: Path, *packages: str, interpreter: str = sys.executable) -> Path:
    """Makes an environment with packages and returns its interpreter."""
    env = {**os.environ, "PYENV_VERSION": "3.12"} if interpreter == "python3.12" else None  # what pyenv's shim asks for
    called(interpreter, "-m", "venv", folder, cwd=folder, env=env)
    called(folder / "bin/python", "-m", "pip", "install", "--quiet", *packages, cwd=folder)
    return folder / "bin/python"


def python312() -> str:
    """Finds an interpreter of Python 3.12 or later; skips the test if there is none."""
    if sys.version_info >= (3, 12):
        return sys.executable
    env = {**os.environ, "PYENV_VERSION": "3.12"}
    if (
        shutil.which("python3.12") is None
        or subprocess.run(["python3.12", "--version"], env=env, capture_output=True).returncode
    ):
        pytest.skip(NO_PYTHON312)
    return "python3.12"


def install_node(folder: Path, *packages: str) -> Path:
    """Installs npm packages, Node among them, and returns their folder."""
    if shutil.which("npm") is None:
        pytest.skip(NO_NPM)
    (folder / "package.json").write_text('{"type": "module"}')
    called("npm", "install", "--no-fund", "--no-audit", *packages, cwd=folder)
    return folder / "node_modules"


def examples(document: str, heading: str) -> list[str]:
    """Returns the fenced blocks below a heading of a document in docs/."""
    section = re.split(r"^### ", (ROOT / "docs" / document).read_text(encoding="utf-8"), flags=re.MULTILINE)
    (own,) = [each for each in section if each.startswith(heading + "\n")]
    return re.findall(r"^```\w+\n(.*?)^```$", own, re.DOTALL | re.MULTILINE)

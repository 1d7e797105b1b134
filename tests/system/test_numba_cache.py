"""Numba's cache lies in a folder that only the user can write, and any other folder is refused."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """\
from ds2_jax.system import logs
logs.show()
import numpy as np
from ds2_jax.decoding.ngram.arpa_kernels import make_table
make_table(np.zeros(4, np.uint8), np.arange(3))
"""
ROOT = Path(__file__).parents[2]


def start(cache: Path, **variables: str) -> str:
    """Compiles a kernel in a process of its own and returns its output on standard error."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    variables = {"XDG_CACHE_HOME": str(cache)} | variables
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=True)
    return done.stderr


def compiled(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.nbi")}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the user's caches by a first start."""
    folder = tmp_path_factory.mktemp("caches")
    assert start(folder) == ""
    return folder


def test_what_is_compiled_is_the_users_alone(caches: Path) -> None:
    assert any(name.startswith("arpa_kernels.make_table") for name in compiled(caches / "ds2_jax/numba"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (caches / "ds2_jax", caches / "ds2_jax/numba")} == {0o700}


def test_a_folder_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "ds2_jax/numba"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert start(tmp_path) == (
        f"compiling inner loops without a cache: {folder} must belong to you and be writable by nobody else, got owner "
        f"{os.getuid()} and mode 777. Set NUMBA_CACHE_DIR to another folder.\n"
    )
    assert not compiled(tmp_path)


def test_the_users_own_folder_is_kept(tmp_path: Path) -> None:
    assert start(tmp_path / "xdg", NUMBA_CACHE_DIR=str(tmp_path / "mine")) == ""
    assert compiled(tmp_path / "mine")
    assert not (tmp_path / "xdg").exists()

"""What the command line shows of the package's logging, and what a program sees that only imports it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEAK = (
    "logger = logging.getLogger('ds2_jax.training')\n"
    "logger.info('epoch 1')\n"
    "logger.warning('left out: a')\n"
    "logger.error('no.wav must be a file')\n"
)


def standard_error(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def test_a_command_shows_each_line_once() -> None:
    """A library may have given the root logger a handler, as TensorFlow does."""
    code = "import logging\nlogging.basicConfig(level=0)\nfrom ds2_jax.system import logs\nlogs.show()\nlogs.show()\n"
    assert standard_error(code + SPEAK) == "epoch 1\nleft out: a\nerror: no.wav must be a file\n"


def test_a_program_that_imports_the_package_sees_nothing_unless_it_asks() -> None:
    assert standard_error(f"import logging, ds2_jax\n{SPEAK}") == ""
    asked = standard_error(f"import logging, ds2_jax\nlogging.basicConfig(format='%(message)s')\n{SPEAK}")
    assert asked == "left out: a\nno.wav must be a file\n"


@pytest.mark.parametrize("loaded", [True, False])
def test_a_line_is_written_above_a_bar(loaded: bool) -> None:
    bar = "import tqdm\nbar = tqdm.tqdm(total=3)\n" if loaded else ""
    code = f"import logging\nfrom ds2_jax.system import logs\nlogs.show()\n{bar}{SPEAK}"
    assert "\nleft out: a\n" in standard_error(code).replace("\r", "\n")


def test_of_several_processes_the_first_alone_gives_information() -> None:
    code = (
        "import logging, sys, types\nfrom ds2_jax.system import logs\nlogs.show()\n"
        "sys.modules['ds2_jax.parallel.processes'] = types.SimpleNamespace(is_primary=lambda: False)\n" + SPEAK
    )
    assert standard_error(code) == "left out: a\nerror: no.wav must be a file\n"

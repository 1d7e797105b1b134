"""interrupts.py: Ctrl-C ends every command with exit code 130, at whatever moment."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import interrupts
from ds2_jax.run import last_step
from tests.small_runs import write_noise_manifest

ROOT = Path(__file__).parent.parent
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
SECONDS = (0.8, 9.0)
"""Between these a command of the small model imports, compiles, trains and saves."""


def start(*words: object) -> subprocess.Popen[str]:
    """A command that runs, and heeds Ctrl-C even where these tests ignore it."""
    return subprocess.Popen(
        [sys.executable, "-c", HEEDING, "main.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str], times: int = 1) -> tuple[float, str]:
    """Sends Ctrl-C; seconds until the process has ended, and what it printed on stderr."""
    started = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    errors = process.communicate(timeout=60)[1]
    return time.monotonic() - started, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of the small model that trains for ever, and its data."""
    folder = tmp_path_factory.mktemp("interrupted")
    manifest = write_noise_manifest(folder / "data")
    (folder / "small.py").write_text(
        "import dataclasses\nfrom pathlib import Path\nfrom tests.small_runs import SMALL_CONFIG, with_manifests\n"
        f"config = with_manifests(dataclasses.replace(SMALL_CONFIG, epochs=10**6), Path({str(manifest)!r}))\n"
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("offset", np.random.default_rng(0).uniform(*SECONDS, 5).round(1).tolist())
def test_training_ends_soon_and_says_how_it_goes_on(folder: Path, tmp_path: Path, offset: float) -> None:
    process = start("--config", folder / "small.py", "--workdir", tmp_path)
    time.sleep(offset)
    seconds, errors = interrupt(process)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Fatal" not in errors
    assert seconds < 10
    last = errors.splitlines()[-1]
    step = last_step(tmp_path)
    told = "interrupted; the same command " + ("starts anew" if step is None else f"continues after step {step}")
    assert last in {told, "interrupted"}  # before the run is opened


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)  # reads until it comes


def test_training_finishes_its_step_and_its_save(folder: Path, tmp_path: Path) -> None:
    process = start("--config", folder / "small.py", "--workdir", tmp_path)
    wait_for(process, "epoch 3:")
    seconds, errors = interrupt(process)
    assert process.returncode == 130, errors
    lines = [line for line in errors.splitlines() if line and not line.startswith("epoch ")]
    assert lines == [
        "interrupted: finishing this step; Ctrl-C again leaves at once",
        f"interrupted; the same command continues after step {last_step(tmp_path)}",
    ]
    assert all(path.name.isdecimal() for path in (tmp_path / "checkpoints").iterdir())
    assert seconds < interrupts.GRACE_SECONDS + 1


def test_second_interruption_leaves_at_once(folder: Path, tmp_path: Path) -> None:
    process = start("--config", folder / "small.py", "--workdir", tmp_path)
    wait_for(process, "compiling")
    seconds, errors = interrupt(process, times=2)
    assert process.returncode == 130, errors
    assert errors.endswith("\ninterrupted; the same command starts anew\n")
    assert seconds < 2


def test_deferred_interruption_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    for event in ("_requested", "_answered"):
        monkeypatch.setattr(interrupts, event, threading.Event())
    with interrupts.deferred(lambda: "nothing is lost"):
        interrupts.check()
    with pytest.raises(KeyboardInterrupt, match="nothing is lost"), interrupts.deferred(lambda: "nothing is lost"):
        interrupts._requested.set()  # and no step follows

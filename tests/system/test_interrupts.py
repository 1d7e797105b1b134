"""Ctrl-C ends every command with exit code 130, at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.runs.run_folder import last_step
from ds2_jax.system import interrupts
from tests.small_runs import write_noise_manifest

ROOT = Path(__file__).parents[2]
HEEDING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
SECONDS = (0.8, 9.0)
"""In this span a command of the small model imports, compiles, trains and saves."""


def start(*words: object) -> subprocess.Popen[str]:
    """Starts a command that reacts to Ctrl-C even if these tests run with it ignored."""
    return subprocess.Popen(
        [sys.executable, "-c", HEEDING, "main.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str], times: int = 1, number: int = signal.SIGINT) -> tuple[float, str]:
    """Sends Ctrl-C or another signal. Returns the seconds until the process ended, and its output on stderr."""
    started = time.monotonic()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.3)
    errors = process.communicate(timeout=60)[1]
    return time.monotonic() - started, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a configuration of the small model that trains without end, and its data."""
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
    assert any(text in line for line in process.stderr)  # reads until the line comes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "told", "again"),
    [(signal.SIGINT, "interrupted", " again"), (signal.SIGTERM, "terminated", ""), (signal.SIGHUP, "hung up", "")],
)
def test_training_finishes_its_step_and_saves(
    folder: Path, tmp_path: Path, number: signal.Signals, told: str, again: str
) -> None:
    process = start("--config", folder / "small.py", "--workdir", tmp_path)
    wait_for(process, "epoch 3:")
    seconds, errors = interrupt(process, number=number)
    assert process.returncode == 128 + number, errors
    lines = [line for line in errors.splitlines() if line and not line.startswith("epoch ")]
    assert lines == [
        f"{told}: finishing this step and saving; Ctrl-C{again} leaves at once",
        f"{told}; the same command continues after step {last_step(tmp_path)}",
    ]
    made = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert last_step(tmp_path) == made  # no step is lost
    assert all(path.name.isdecimal() for path in (tmp_path / "checkpoints").iterdir())
    assert seconds < 5


def test_second_interruption_leaves_at_once(folder: Path, tmp_path: Path) -> None:
    process = start("--config", folder / "small.py", "--workdir", tmp_path)
    wait_for(process, "compiling")
    seconds, errors = interrupt(process, times=2)
    assert process.returncode == 130, errors
    assert errors.endswith("\ninterrupted; the same command starts anew\n")
    assert seconds < 2


def test_deferred_interruption_says_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_requested", None)
    with interrupts.deferred(lambda: "nothing is lost"):
        interrupts.check()
    with pytest.raises(interrupts.Stopped) as stop, interrupts.deferred(lambda: "nothing is lost"):
        monkeypatch.setattr(interrupts, "_requested", signal.SIGTERM)  # and no step follows
    assert str(stop.value) == "terminated; nothing is lost"
    assert stop.value.code == 143


WAITING = """
import time
from ds2_jax.system import interrupts
interrupts.watch()
with interrupts.temporary_folder() as folder:
    (folder / "recording").write_bytes(bytes(99))
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_temporary_folder(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", HEEDING, "-c", WAITING]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().strip()).parent == tmp_path
        interrupt(process, number=number)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


IN_TERMINAL = """
import os, pty, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL if sys.argv[1] == "heeded" else signal.SIG_IGN)
process, terminal = pty.fork()
if not process:
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
while not os.read(terminal, 1000).endswith(b"ready"):
    pass
os.close(terminal)  # as when its window is closed
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
WORKING = """
import pathlib, sys, time
from ds2_jax.system import interrupts
interrupts.watch()
try:
    with interrupts.deferred(lambda: "nothing is lost"):
        sys.stderr.write("ready")
        for step in range(20):
            time.sleep(0.1)
            if step > 8 and interrupts.requested():
                print("saving", file=sys.stderr, flush=True)  # the terminal is gone
                pathlib.Path(sys.argv[1]).write_text("saved")
                interrupts.check()
except interrupts.Stopped as stop:
    print(stop, file=sys.stderr)
    interrupts.leave(stop.code)
"""


@pytest.mark.parametrize(("mode", "code"), [("heeded", 129), ("ignored", 0)])
def test_a_closed_terminal_saves_and_stops_unless_the_signal_is_ignored(tmp_path: Path, mode: str, code: int) -> None:
    saved = tmp_path / "saved"
    words = [sys.executable, "-c", IN_TERMINAL, mode, WORKING, str(saved)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == code
    assert saved.exists() is (mode == "heeded")

"""What the command line says and returns when something goes wrong, or it is interrupted."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.system.errors import InputError
from ds2_jax.system.interrupts import Stopped
from tests.test_cli import run_cli

ROOT = Path(__file__).parent.parent


def test_interruption_is_said_plainly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("ds2_jax.corpora.an4.prepare", stop)
    assert run_cli(capsys, "prepare", "an4") == (130, "interrupted")


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> Path:
        raise error

    monkeypatch.setattr("ds2_jax.corpora.an4.prepare", fail)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Stopped(signal.SIGINT, "the same command starts anew"), 130, "interrupted; the same command starts anew"),
        (Stopped(signal.SIGTERM, "it goes on"), 143, "terminated; it goes on"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (
            PermissionError(errno.EACCES, "Permission denied", "data/x"),
            1,
            "error: data/x must be readable and writable, got: Permission denied. Free space, or correct the path or "
            "its permissions.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: Standard output must be readable and writable, got: No space left on device. Free space, or "
            "correct the path or its permissions.",
        ),
    ],
)
def test_what_the_system_refuses_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    raising(monkeypatch, error)
    assert run_cli(capsys, "prepare", "an4") == (code, message)


def test_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ConnectionResetError(errno.ECONNRESET, "Connection reset"))
    with pytest.raises(ConnectionResetError):
        cli.main(["prepare", "an4"])


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("> /dev/full", 1, "error: Standard output must be readable and writable, got: No space left on device."),
        (">&-", 1, "error: Standard output must be open, got a closed one."),
        ("2>&-", 0, ""),
        ("| true", 141, ""),
    ],
)
def test_output_that_cannot_be_written(redirection: str, code: int, message: str) -> None:
    command = f"set -o pipefail; {sys.executable} main.py train --help {redirection}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr[: len(message)]) == (code, message)
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_errors_keep_their_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Path:
        raise InputError("the archive must be whole, got half of it.")

    monkeypatch.setattr("ds2_jax.corpora.an4.prepare", fail)
    assert run_cli(capsys, "prepare", "an4") == (1, "error: the archive must be whole, got half of it.")

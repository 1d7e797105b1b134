"""One process at a time holds a lock, and a process that has ended holds none."""

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2_jax.system.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from ds2_jax.system.locks import locked
with locked(Path(sys.argv[1]), on_taken=exit, on_no_locks=exit):
    print("held", flush=True)
    time.sleep(600)
"""


def fail(*_: object) -> None:
    raise AssertionError


@pytest.fixture(params=["folder", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path if request.param == "folder" else tmp_path / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock_of_another_process_is_waited_for_until_that_process_is_killed(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    told = []

    def kill() -> None:
        told.append(holder.poll())
        holder.send_signal(signal.SIGKILL)

    with locked(path, on_taken=kill, on_no_locks=fail):
        assert told == [None]
        assert holder.wait(10) == -signal.SIGKILL


def test_lock_that_is_taken_can_be_refused(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(AssertionError), locked(path, on_taken=fail, on_no_locks=fail):
        pass
    assert holder.poll() is None


def test_lock_ends_with_its_body(path: Path) -> None:
    for _ in range(2):
        with locked(path, on_taken=fail, on_no_locks=fail):
            assert path.exists()


def test_file_system_without_locks_is_told_and_work_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    told: list[str] = []
    with locked(path, on_taken=fail, on_no_locks=told.append):
        assert told == ["No locks available"]

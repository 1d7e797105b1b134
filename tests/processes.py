"""Starts several processes of one training on this machine and collects their output."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEVICES = 2
"""Variables that are set for each process."""


def free_port() -> int:
    """Returns a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(
    command: Sequence[object],
    num_processes: int,
    *,
    port: int | None = None,
    indices: Sequence[int] | None = None,
    wait_minutes: float = 5,
) -> list[subprocess.Popen[str]]:
    """Starts `python COMMAND --distributed --coordinator ... --num-processes ... --process-index ...` for each index.

    Args:
        command: a script or -m MODULE, and its arguments.
        num_processes: number of processes that each one expects.
        port: port of the coordinator.
        indices: indices of the processes to start; by default all.
        wait_minutes: time for which each process waits for the others.
    """
    port = port or free_port()
    return [
        subprocess.Popen(
            [
                *(sys.executable, *map(str, command), "--distributed", f"--coordinator=127.0.0.1:{port}"),
                *(f"--num-processes={num_processes}", f"--process-index={index}", f"--wait-minutes={wait_minutes}"),
            ],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (range(num_processes) if indices is None else indices)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], seconds: float = 300) -> list[tuple[int, str]]:
    """Waits for the processes, kills any that remain, and returns the exit code and stderr of each."""
    try:
        errors = [process.communicate(timeout=seconds)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]

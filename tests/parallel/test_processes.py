"""Processes find each other, agree and end together."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
import tyro

from ds2_jax.parallel.cluster import ALONE, ClusterOptions, Place, find_place
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.parallel.processes import (
    LOST,
    PACKAGE,
    barrier,
    broadcast_from_primary,
    check_same,
    code_digest,
    exchange,
    is_primary,
    joined,
)
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from tests import processes

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[07-09],other",
    "SLURM_NTASKS": "12",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
}


CLUSTER_VARIABLES = (
    *("JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_PORT", "JAX_LOCAL_DEVICE_IDS"),
    *("JOB_COMPLETION_INDEX", "KUBERNETES_SERVICE_HOST", *SLURM, *OPEN_MPI),
)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets the variables of a cluster and unsets all others."""
    for name in CLUSTER_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def put(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def given(**options: Any) -> ClusterOptions:
    return ClusterOptions(distributed=True, **options)


ALL = {"coordinator": "node1:7000", "num_processes": 4}


@pytest.mark.parametrize(
    ("environment", "options", "place"),
    [
        ({}, {**ALL, "process_index": 3}, Place("node1:7000", 4, 3, None)),
        (
            {"JAX_COORDINATOR_ADDRESS": "[::1]:80", "JAX_LOCAL_DEVICE_IDS": "0,1"},
            {"num_processes": 4, "process_index": 0},
            Place("[::1]:80", 4, 0, [0, 1]),
        ),
        ({"JOB_COMPLETION_INDEX": "2"}, ALL, Place("node1:7000", 4, 2, None)),
        ({"JOB_COMPLETION_INDEX": "2", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ALL, Place("node1:7000", 4, 2, None)),
        (SLURM, {}, Place("node07:61441", 12, 5, [1])),
        (SLURM, {"coordinator": "node07:7000"}, Place("node07:7000", 12, 5, [1])),
        (OPEN_MPI, {}, Place("10.96.0.1:62624", 4, 3, [3])),
    ],
)
def test_a_place_is_given_or_found(
    environment: dict[str, str],
    options: dict[str, Any],
    place: Place,
    variables: Callable[[dict[str, str]], None],
) -> None:
    variables(environment)
    assert find_place(given(**options)) == place


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        (
            {},
            {},
            r"^--distributed must find the index of this process and the coordinator, got no cluster \(SLURM, .*Give",
        ),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, "^--distributed must find the index of this process"),
        (
            {"JOB_COMPLETION_INDEX": "2"},
            {"num_processes": 4},
            r"must come together, got only --num-processes 4\. Add --coordinator and --process-index\.$",
        ),
        ({}, ALL, r"got only --coordinator node1:7000, --num-processes 4\. Add --process-index\.$"),
        (
            {},
            {**ALL, "process_index": 4},
            r"^--process-index must lie in 0 to 3, got 4\. Count the processes from 0\.$",
        ),
        ({}, {**ALL, "process_index": -1}, "^--process-index must lie in 0 to 3, got -1"),
        (
            {**SLURM, "SLURM_NTASKS": "many"},
            {},
            "^--distributed must find the index of this process in the cluster, got: inv",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "node1"}, {}, "got only --coordinator node1"),
        (
            {**SLURM, "JAX_COORDINATOR_ADDRESS": "node1"},
            {},
            "^The coordinator's address must be HOST:PORT, got 'node1'",
        ),
    ],
)
def test_a_place_that_is_neither(
    environment: dict[str, str],
    options: dict[str, Any],
    message: str,
    variables: Callable[[dict[str, str]], None],
) -> None:
    variables(environment)
    with pytest.raises(InputError, match=message):
        find_place(given(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_index": 0}, r"^--process-index must come with --distributed, got 0\. Add --distributed\.$"),
        ({"distributed": True, "coordinator": "node1"}, "^--coordinator must be HOST:PORT, got 'node1'"),
        ({"distributed": True, "coordinator": ":70"}, "^--coordinator must be HOST:PORT"),
        ({"distributed": True, "coordinator": "node1:65536"}, "^--coordinator must be HOST:PORT"),
        ({"distributed": True, "num_processes": 0}, "^--num-processes must be at least 1, got 0"),
        ({"distributed": True, "wait_minutes": 0.0}, "^--wait-minutes must be positive, within a day, got 0.0"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClusterOptions(**options)


@pytest.mark.parametrize("options", [ALONE, given(coordinator="node1:7000", num_processes=1, process_index=0)])
def test_one_process_is_all(options: ClusterOptions) -> None:
    with joined(options, lambda: ""):
        assert is_primary()
        assert exchange("values", 3) == [3]
        assert broadcast_from_primary("step", None) is None
        assert broadcast_from_primary("step", 8) == 8
        barrier("end")
        check_same(data="1a2b")


def join(options: ClusterOptions) -> None:
    with joined(options, lambda: ""):
        pass


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        message = rf"^--coordinator must be an address .* can listen, got {address}: .*in use\. Choose another port\.$"
        with pytest.raises(InputError, match=message):
            join(given(coordinator=address, num_processes=2, process_index=0))


def test_an_address_of_another_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "192.0.2.1:7000"  # reserved for documentation: no host has it
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", address)
    message = rf"^--coordinator must be an address .* can listen, got {address}: .*\. Choose a port above 1023"
    with pytest.raises(InputError, match=message):
        join(given(coordinator=address, num_processes=2, process_index=0))


def test_the_code_digest_covers_names_and_contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "ds2_jax"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    original = code_digest()
    monkeypatch.setattr("ds2_jax.parallel.processes.PACKAGE", copy)
    assert code_digest() == original
    (copy / "parallel/rows.py").rename(copy / "parallel/rows_.py")
    renamed = code_digest()
    (copy / "parallel/rows_.py").write_text("")
    assert len({original, renamed, code_digest()}) == 3


# The tests below start processes that run these functions: `python -m tests.parallel.test_processes WORK FOLDER ...`


def agree(_: Path) -> None:
    """Exchanges and compares equal values, and at last a value that differs."""
    me = jax.process_index()
    assert is_primary() == (me == 0)
    for number in range(3):
        assert exchange("values", [me, number]) == [[0, number], [1, number]]
    assert broadcast_from_primary("step", 10 + me) == 10
    barrier("here")
    check_same(data="1a2b")
    check_same(data="1a2b", configuration=f"{me}3456789abcdef")


def fail_in_one(_: Path) -> None:
    """Fails in process 1 while process 0 waits for it."""
    if not is_primary():
        raise InputError("data.train must be readable, got a disk that is gone.")
    barrier("never")


def train(folder: Path) -> None:
    """Makes steps without end, as in training."""
    mesh = data_mesh()
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    total = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "data"),
            mesh=mesh,
            in_specs=jax.sharding.PartitionSpec(),
            out_specs=jax.sharding.PartitionSpec(),
            check_vma=False,
        )
    )
    one = jax.make_array_from_process_local_data(sharding, jax.numpy.ones(4), (4,))
    while True:
        jax.block_until_ready(total(one))
        (folder / f"steps{jax.process_index()}").touch()
        time.sleep(0.05)


def end(_: Path) -> None:
    """Ends in order. Process 0, which runs the coordinator, is done first."""
    if not is_primary():
        time.sleep(2)


WORK = {work.__name__: work for work in (agree, fail_in_one, train, end)}


def main() -> int:
    try:
        options = tyro.cli(ClusterOptions, args=sys.argv[3:])
        with joined(options, lambda: "the same command continues after step 8"):
            WORK[sys.argv[1]](Path(sys.argv[2]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def start(work: str, folder: Path, num_processes: int = 2, **places: Any) -> list[subprocess.Popen[str]]:
    return processes.start(["-m", "tests.parallel.test_processes", work, folder], num_processes, **places)


def test_processes_agree_or_say_in_what_they_do_not(tmp_path: Path) -> None:
    for code, error in processes.finish(start("agree", tmp_path)):
        assert code == 1
        assert error.splitlines()[-1] == (
            "error: All processes of a training run must have the same settings, data, code and devices, got different "
            "values: configuration: 03456789abcd in process 0, 13456789abcd in process 1. Make them equal, and "
            "start all processes again."
        )


def test_processes_end_together(tmp_path: Path) -> None:
    for code, error in processes.finish(start("end", tmp_path)):
        assert code == 0
        assert "error" not in error, error


def test_the_error_of_one_is_told_by_the_others(tmp_path: Path) -> None:
    (code, error), (failed, reason) = processes.finish(start("fail_in_one", tmp_path), seconds=60)
    assert (code, failed) == (LOST, 1)
    assert reason.splitlines()[-1] == "error: data.train must be readable, got a disk that is gone."
    assert error.splitlines()[-1] == (
        "error: another process of this training run has ended, or cannot be reached (process 1: data.train must be "
        "readable, got a disk that is gone.); the same command continues after step 8"
    )


def test_processes_must_be_as_many_as_they_expect(tmp_path: Path) -> None:
    port = processes.free_port()
    started = [
        *start("end", tmp_path, 2, port=port, indices=[0]),
        *start("end", tmp_path, 3, port=port, indices=[1]),
    ]
    (_, first), (code, second) = processes.finish(started, seconds=60)
    assert code == 1
    assert "--num-processes must be the same in all processes, got 3 in process 1 and 2 in process 0." in second
    assert "process 1: --num-processes must be the same" in first


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_processes_that_do_not_come(index: int, tmp_path: Path) -> None:
    started = time.monotonic()
    [process] = start("end", tmp_path, 2, indices=[index], wait_minutes=0.05)
    [(code, error)] = processes.finish([process], seconds=60)
    assert time.monotonic() - started < 30
    assert code == 1
    assert "error: All 2 processes must reach process 0, the coordinator, at 127.0" in error


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_peer_ends_the_others_within_a_minute(number: int, victim: int, tmp_path: Path) -> None:
    started = start("train", tmp_path)
    try:
        while not all((tmp_path / f"steps{index}").exists() for index in range(2)):
            time.sleep(0.1)
            assert all(process.poll() is None for process in started)
        started[victim].send_signal(number)
        struck = time.monotonic()
        [(code, error)] = processes.finish([started[1 - victim]], seconds=70)
        seconds = time.monotonic() - struck
    finally:
        for process in started:
            process.kill()
        processes.finish([started[victim]])
    print(f"{signal.Signals(number).name} of process {victim}: {seconds:.1f} s")
    assert seconds < 60
    assert code == LOST
    assert error.splitlines()[-1].startswith(
        "error: another process of this training run has ended, or cannot be reached ("
    )
    assert error.splitlines()[-1].endswith("); the same command continues after step 8")


if __name__ == "__main__":
    interrupts.leave(main())

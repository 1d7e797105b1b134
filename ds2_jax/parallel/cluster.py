"""How the processes of a training run find each other: options of `train`, and environment variables of schedulers."""

import dataclasses
import os
import warnings
from typing import NamedTuple

from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

SCHEDULERS = "SLURM, Open MPI 4, a Cloud TPU, or Kubernetes with the package `kubernetes`"


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """Training in several processes, on one machine or many."""

    distributed: bool = False
    """Train in several processes, all started with the same command. With SLURM, Open MPI 4 and Cloud TPUs each process
    finds its index, the coordinator and the number of processes. Otherwise give the three options below."""
    coordinator: str | None = None
    """HOST:PORT of process 0. All processes must be able to reach it. The default is the environment variable
    JAX_COORDINATOR_ADDRESS."""
    num_processes: int | None = None
    """Number of processes in this training run."""
    process_index: int | None = None
    """Index of this process, counted from 0. The default is the environment variable JOB_COMPLETION_INDEX, which a
    Kubernetes Indexed Job sets."""
    wait_minutes: float = 5.0
    """Minutes to wait for the other processes to start."""

    def __post_init__(self) -> None:
        place = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-index": self.process_index,
        }
        for option, value in place.items():
            require(self.distributed or value is None, option, "come with --distributed", value, "Add --distributed.")
        if self.coordinator is not None:
            _check_address("--coordinator", self.coordinator)
        if self.num_processes is not None:
            require(self.num_processes >= 1, "--num-processes", "be at least 1", self.num_processes)
        require(0 < self.wait_minutes < 24 * 60, "--wait-minutes", "be positive, within a day", self.wait_minutes)


ALONE = ClusterOptions()


class Place(NamedTuple):
    """Identifies a process among the processes of a training run.

    Attributes:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes in the run.
        process_index: index of this process, counted from 0.
        local_devices: the indices of the machine's devices that this process uses; None for all.
    """

    coordinator: str
    num_processes: int
    process_index: int
    local_devices: list[int] | None


def find_place(options: ClusterOptions) -> Place:
    """Finds the `Place` of this process from the options. JAX's cluster detection fills in what is missing.

    In a Kubernetes Indexed Job the options give the coordinator and the number of processes, and the job sets the
    index. So the job needs neither the package `kubernetes` nor permission to query the cluster, unlike JAX's own
    detection.

    Raises:
        InputError: the coordinator, the number of processes or the index is unknown, or the index is out of range.
    """
    coordinator = options.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS") or None
    index, count = options.process_index, options.num_processes
    if index is None and coordinator is not None and count is not None and "JOB_COMPLETION_INDEX" in os.environ:
        index = _number("JOB_COMPLETION_INDEX", os.environ["JOB_COMPLETION_INDEX"])
    named = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    local_devices = [_number("JAX_LOCAL_DEVICE_IDS", part) for part in named.split(",")] if named else None
    coordinator, count, index, local_devices = _detect(options, coordinator, count, index, local_devices)
    place = {"--coordinator": coordinator, "--num-processes": count, "--process-index": index}
    missing = [option for option, value in place.items() if value is None]
    if len(missing) == len(place):
        raise InputError(
            f"--distributed must find the index of this process and the coordinator, got no cluster ({SCHEDULERS}). "
            "Give --coordinator HOST:PORT, --num-processes N and --process-index I."
        )
    if missing:
        given = ", ".join(f"{option} {value}" for option, value in place.items() if value is not None)
        raise InputError(
            f"--coordinator, --num-processes and --process-index must come together, got only {given}. "
            f"Add {' and '.join(missing)}."
        )
    assert coordinator is not None
    assert count is not None
    assert index is not None
    _check_address("The coordinator's address", coordinator)
    require(0 <= index < count, "--process-index", f"lie in 0 to {count - 1}", index, "Count the processes from 0.")
    return Place(coordinator, count, index, local_devices)


def _detect(
    options: ClusterOptions,
    coordinator: str | None,
    count: int | None,
    index: int | None,
    local_devices: list[int] | None,
) -> tuple[str | None, int | None, int | None, list[int] | None]:
    """Fills in values that are None, if JAX detects a cluster."""
    from jax._src.clusters import ClusterEnv  # has no public name; imported here, because --help needs no JAX

    try:
        with warnings.catch_warnings():
            # JAX warns if the package `kubernetes` is missing. `find_place` reports what is then unknown.
            warnings.simplefilter("ignore", UserWarning)
            coordinator, count, index, found = ClusterEnv.auto_detect_unset_distributed_params(
                coordinator, count, index, local_devices, None, int(options.wait_minutes * 60)
            )
    except (RuntimeError, OSError, ValueError, KeyError) as error:  # from Kubernetes, or from inconsistent variables
        raise InputError(
            f"--distributed must find the index of this process in the cluster, got: {error}. "
            "Give --coordinator HOST:PORT, --num-processes N and --process-index I."
        ) from error
    return coordinator, count, index, None if found is None else list(found)


def _number(variable: str, text: str) -> int:
    """Parses the whole number in an environment variable."""
    holds = text.strip().isdecimal()
    require(holds, f"The variable {variable}", "hold whole numbers", text, "Correct it, or do not set it.")
    return int(text)


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    holds = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
    require(holds, name, "be HOST:PORT", address, "For example node1:7000.")

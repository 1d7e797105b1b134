"""Training in several processes: they find each other, exchange values and end together.

They communicate through the key-value store of JAX's coordination service, which process 0 runs. It works before the
devices start and while they compute. Without `--distributed` the functions here have nothing to do.
"""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax._src.distributed import global_state  # jax.distributed exposes neither the client nor the index

from ds2_jax.parallel.cluster import ClusterOptions, Place, find_place
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

PACKAGE = Path(__file__).resolve().parents[1]
LOST = 75
"""Exit code if another process is lost. The code means "try again" (EX_TEMPFAIL of sysexits.h)."""
HEARTBEAT_SECONDS = 40
"""JAX considers a process dead if it is silent for this long. After this, every other process ends too. All this takes
less than a minute."""
ANSWER_MINUTES = 60
"""How long `exchange` waits for the other processes. Process 0 may read a large checkpoint meanwhile."""
# If one process exits by itself, the others end too. So a process first waits for the others:
DONE_SECONDS = 24 * 3600
"""How long a process waits for the others after training is complete."""
STOPPED_SECONDS = 60
"""How long a process waits for the others after a signal."""
FAILED_SECONDS = 5
"""How long a process waits for the others after an error."""
POLL_SECONDS = 1.0
"""How often a process checks whether another one has reported a failure."""
GRACE_SECONDS = 2.0
"""How long a process may still report its own failure after another one has reported a failure."""
ANSWERS = "ds2_jax/answers"
ENDED = "ds2_jax/ended"

_rounds = itertools.count()
_handlers: list[Any] = []  # C may call these handlers, so they must live as long as the process


def is_primary() -> bool:
    """Whether this process is process 0, which writes metrics, results and the configuration for all processes."""
    return global_state.process_id == 0


def exchange(name: str, value: Any) -> list[Any]:
    """Sends a value to all processes and waits for theirs. All processes must make the same calls in the same order.

    Args:
        name: a name for this exchange, the same in all processes.
        value: a value that JSON can represent.

    Returns:
        The values of all processes, in the order of their indices.
    """
    client, me, count = global_state.client, global_state.process_id, global_state.num_processes
    if client is None:
        return [value]
    number = next(_rounds)
    client.key_value_set(f"{ANSWERS}/{number}/{me}", json.dumps([name, value]))
    answers = [
        json.loads(client.blocking_key_value_get(f"{ANSWERS}/{number}/{i}", int(ANSWER_MINUTES * 60_000)))
        for i in range(count)
    ]
    asked = [question for question, _ in answers]
    if asked != [name] * count:
        raise RuntimeError(f"the processes are out of step: they exchange {asked}")
    if number:  # all have answered this round, so all have read the previous one
        client.key_value_delete(f"{ANSWERS}/{number - 1}/{me}")
    return [answer for _, answer in answers]


def barrier(name: str) -> None:
    """Waits until all processes have reached this call."""
    exchange(name, None)


def broadcast_from_primary(name: str, value: Any) -> Any:
    """Returns the value of process 0, which JSON must be able to represent. Values of other processes are ignored."""
    return exchange(name, value if is_primary() else None)[0]


def check_same(**values: str | int) -> None:
    """Checks that `values`, code, JAX version and number of devices are the same in all processes.

    Args:
        values: this process's values, named for the error message. Use digests of long values.

    Raises:
        InputError: a value differs. All processes raise it.
    """
    mine = {
        **values,
        "code": code_digest(),
        "jax": jax.__version__,
        "number of local devices": jax.local_device_count() if global_state.client else 1,
    }
    answers = exchange("check_same", mine)
    differing = []
    for name in dict.fromkeys(itertools.chain.from_iterable(answers)):
        holders: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            holders.setdefault(str(answer.get(name)), []).append(index)
        if len(holders) > 1:
            parts = [f"{value[:12]} in {_processes(indices)}" for value, indices in holders.items()]
            differing.append(f"{name}: {', '.join(parts)}")
    if differing:
        raise InputError(
            "All processes of a training run must have the same settings, data, code and devices, got different "
            f"values: {'; '.join(differing)}. Make them equal, and start all processes again."
        )


def code_digest() -> str:
    """Computes the SHA-256 of this package's source files and their names."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


@contextlib.contextmanager
def joined(options: ClusterOptions, prospects: Callable[[], str]) -> Iterator[None]:
    """Joins the other processes, ends this one if another fails, and waits for the others before it leaves.

    Enter this context before anything starts JAX's devices. If the code inside raises an error, the process reports it
    to the others, and they end within a few seconds. If a process dies or sends no heartbeat, the others end within
    a minute. They print a line to stderr and exit with code `LOST`.

    Args:
        options: the options of the command line. Without --distributed nothing is done.
        prospects: returns a text that says how to continue after an interruption.

    Raises:
        InputError: the index of this process is unknown, or the coordinator cannot listen. If too few processes start,
            this process ends with a line on stderr instead.
    """
    place = find_place(options) if options.distributed else None
    if place is None or place.num_processes == 1:
        yield
        return
    _start(place, options.wait_minutes)
    _before_abort(lambda: _lost("the lines above say more", prospects))
    left = threading.Event()
    threading.Thread(target=_watch, args=(left, prospects), daemon=True).start()
    try:
        _check_count(place)
        yield
    except KeyboardInterrupt:  # a signal stopped all processes, or came after the last step
        _leave(left, "in order", STOPPED_SECONDS)
        raise
    except Exception as error:
        if _is_of_peer(error):
            _write(_lost(_reason() or str(error).splitlines()[0], prospects))
            interrupts.leave(LOST)
        left.set()
        _tell(error)
        _leave(left, "failed", FAILED_SECONDS)
        raise
    _leave(left, "in order", DONE_SECONDS)


def _start(place: Place, minutes: float) -> None:
    loopback = place.coordinator.startswith(("localhost:", "127.", "[::1]:"))
    port = place.coordinator.rpartition(":")[2]
    everywhere = f"[::]:{port}" if socket.has_dualstack_ipv6() else f"0.0.0.0:{port}"
    # A host may resolve its own name to 127.0.1.1. So bind to one address only if it is a loopback address.
    bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or (place.coordinator if loopback else everywhere)
    if place.process_index == 0:
        _check_free(bind, place.coordinator)
    where = f"process {place.process_index} of {place.num_processes}, coordinator {place.coordinator}"
    logger.info(f"{where}: waiting for the other processes")
    _before_abort(
        lambda: (
            f"error: All {place.num_processes} processes must reach process 0, the coordinator, at {place.coordinator} "
            f"within {minutes:g} minutes, got too few, or one with different options (see the lines above). "
            "Start all with the same --coordinator and --num-processes, each with its own --process-index. To wait "
            "longer, use --wait-minutes."
        ),
        code=1,
    )
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # it would replace the SIGTERM handler of system/interrupts.py
    jax.distributed.initialize(
        place.coordinator,
        place.num_processes,
        place.process_index,
        place.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=round(minutes * 60),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        coordinator_bind_address=bind,
    )


def _check_free(bind: str, coordinator: str) -> None:
    """Checks that the coordinator can listen. Otherwise JAX would crash (SIGSEGV)."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family, dualstack_ipv6=host == "::").close()
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        advice = "Choose another port." if in_use else "Choose a port above 1023, and an address of this machine."
        raise InputError(
            f"--coordinator must be an address at which process 0 can listen, got {coordinator}: "
            f"{os.strerror(errno.EADDRINUSE) if in_use else error}. {advice}"
        ) from error


def _check_count(place: Place) -> None:
    """Checks that all processes expect the same number of processes. JAX's coordinator does not check it."""
    client = global_state.client
    assert client is not None
    if place.process_index == 0:
        client.key_value_set("ds2_jax/num_processes", str(place.num_processes))
    expected = int(client.blocking_key_value_get("ds2_jax/num_processes", HEARTBEAT_SECONDS * 1000))
    if expected != place.num_processes:
        raise InputError(
            f"--num-processes must be the same in all processes, got {place.num_processes} in process "
            f"{place.process_index} and {expected} in process 0. Start all with the same number."
        )


def _before_abort(line: Callable[[], str], code: int = LOST) -> None:
    """Sets the last line that this process prints, and its exit code, if JAX aborts it.

    When JAX loses the coordinator or another process, it aborts this process (SIGABRT) from a thread of its own.
    Python's signal handlers run in the main thread, which is too late. JAX's own callback for this case crashes
    (jax 0.10.1). So this function installs a C signal handler.
    """

    def handle(_: int) -> None:
        _write(line())
        os._exit(code)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    _handlers.append(handler)
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


def _watch(left: threading.Event, prospects: Callable[[], str]) -> None:
    """Ends this process when another process reports a failure. `left` is set once this process is leaving."""
    while not left.wait(POLL_SECONDS):
        if _reason() is None:
            continue
        if not left.wait(GRACE_SECONDS):  # otherwise this process reports its own failure
            _write(_lost(_reason() or "", prospects))
            os._exit(LOST)


def _tell(error: Exception) -> None:
    """Reports to the other processes why this one ends. If JAX aborts it first, it still prints the reason."""
    mine = f"error: {error}" if isinstance(error, InputError) else traceback.format_exc()
    _before_abort(lambda: mine, code=1)
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator cannot be reached
        assert global_state.client is not None
        global_state.client.key_value_set(f"{ENDED}/{global_state.process_id}", str(error) or type(error).__name__)


def _reason() -> str | None:
    """Returns why another process has ended, if one has reported it."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        assert global_state.client is not None
        for key, error in global_state.client.key_value_dir_get(ENDED):
            index = int(key.rpartition("/")[2])
            if index != global_state.process_id:
                return f"process {index}: {error}"
    return None


def _leave(left: threading.Event, how: str, seconds: int) -> None:
    """Waits until all processes are ready to leave. Then disconnects, so that none reports a failure.

    After `seconds` it returns without disconnecting.
    """
    assert global_state.client is not None
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # some processes were not ready in time
        global_state.client.wait_at_barrier(f"ds2_jax/left {how}", seconds * 1000)
        left.set()
        jax.distributed.shutdown()


def _is_of_peer(error: Exception) -> bool:
    """Whether an error comes from Gloo (CPUs), NCCL (GPUs) or the coordinator: another process has probably ended."""
    text = str(error)
    return not isinstance(error, InputError) and any(
        name in text for name in ("Gloo", "NCCL", "/xla.coordination.", "CoordinationServiceError")
    )


def _lost(why: str, prospects: Callable[[], str]) -> str:
    with contextlib.suppress(OSError, InputError):  # the run's folder may be lost too
        return f"error: another process of this training run has ended, or cannot be reached ({why}); {prospects()}"
    return f"error: another process of this training run has ended, or cannot be reached ({why})"


def _write(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())  # the main thread may hold the lock of sys.stderr


def _processes(indices: list[int]) -> str:
    return ("process " if len(indices) == 1 else "processes ") + ", ".join(map(str, indices))

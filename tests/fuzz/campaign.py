"""Sends damaged files to workers and compares the outcomes with the limits.

python -m tests.fuzz.campaign NUM_EACH [TARGET ...]     prints the counts
python -m tests.fuzz.campaign --show TARGET NUMBER      writes that file to standard output
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tests.fuzz.targets import TARGETS

MAX_SECONDS = 5.0
"""CPU time for one file."""
SECONDS_TO_HANG = 30.0
"""Wall time for one file; it is longer because other programs may use the CPU."""
MAX_GROWTH = 256.0
"""Growth of resident memory in MiB for one file; the seeds and most claims are smaller than 100 KiB."""
SECONDS_TO_IMPORT = 300.0
"""Time for the first file of a target, which imports and compiles."""
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of reading one file.

    Attributes:
        target: kind of the file.
        number: number of the mutation; below 0 for a seed or a claim made by hand.
        outcome: accepted, refused, failed (another exception, or a broken rule), crashed or hung.
        seconds: CPU time; wall time if it hung.
        growth: growth of the largest resident memory in MiB.
        detail: the message, the traceback, or the end of the process's output.
        is_seed: whether the file is whole.
        is_last: whether it is the last file made by hand.
    """

    target: str
    number: int
    outcome: str
    seconds: float
    growth: float
    detail: str
    is_seed: bool = False
    is_last: bool = False

    @property
    def fault(self) -> str:
        """The broken rule; "" if none is broken."""
        if self.outcome in ("failed", "crashed", "hung"):
            return f"{self.outcome}: {self.detail}"
        if self.is_seed:
            return "" if self.outcome == "accepted" else f"a whole file was {self.outcome}: {self.detail}"
        if self.seconds > MAX_SECONDS:
            return f"{self.seconds:.1f} s"
        return f"{self.growth:.0f} MiB" if self.growth > MAX_GROWTH else ""

    @property
    def again(self) -> str:
        """The command that writes the same file again."""
        return f"python -m tests.fuzz.campaign --show {self.target!r} {self.number}"

    @property
    def kind(self) -> str:
        """A short name of the fault with its place in this project; similar faults have the same name."""
        places = re.findall(r'ds2_jax/(\S+\.py)", line (\d+)', self.fault)
        place = ":".join(places[0] if self.outcome in ("crashed", "hung") else places[-1]) if places else "no place"
        last = (self.fault.strip().splitlines() or [""])[0 if self.outcome in ("crashed", "hung") else -1]
        return f"{self.outcome} at {place}: {re.sub('[0-9]+', 'N', last)[:200]}"


class Worker:
    """A process that reads files and is restarted if it dies; a context manager."""

    def __init__(self, folder: Path, seconds_to_hang: float = SECONDS_TO_HANG) -> None:
        self._folder = folder
        self._seconds_to_hang = seconds_to_hang
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None
        self._warm: set[str] = set()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, target: str, number: int) -> Outcome:
        """Lets the process read one file and returns the outcome."""
        if number != -1 and target not in self._warm:
            self.read(target, -1)
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([target, number]) + "\n")
        process.stdin.flush()
        limit = SECONDS_TO_IMPORT if number == -1 else self._seconds_to_hang
        if not select.select([process.stdout], [], [], limit)[0]:
            process.send_signal(signal.SIGABRT)  # faulthandler prints where it hangs
            return self._dead(target, number, "hung", limit)
        line = process.stdout.readline()
        if not line:
            return self._dead(target, number, "crashed", 0.0)
        self._warm.add(target)
        return Outcome(target, number, **json.loads(line))

    def _start(self) -> "subprocess.Popen[str]":
        self._stop()
        root = Path(tempfile.mkdtemp(dir=self._folder))
        self._said = (self._folder / f"{root.name}.log").open("w")
        command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.worker", str(root)]
        pipe, environment = subprocess.PIPE, {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["NUMBA_CACHE_DIR"] = str(ROOT / ".pytest_cache/numba")
        self._process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ | environment,
        )
        return self._process

    def _stop(self) -> int:
        """Ends the process and returns its exit code."""
        if self._said is not None:
            self._said.close()
        self._warm.clear()
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # includes the programs that it started
        return process.wait()

    def _dead(self, target: str, number: int, outcome: str, seconds: float) -> Outcome:
        assert self._said is not None
        said = self._said
        code = self._stop()
        text = Path(said.name).read_text(errors="replace")[-2000:]
        return Outcome(target, number, outcome, seconds, 0.0, f"exit code {code}: {text}", is_last=True)


def run(targets: Sequence[str], num_each: int, folder: Path, first: int = 0) -> Iterator[Outcome]:
    """Reads the seeds, the claims and `num_each` mutations of each target, one after the other."""
    with Worker(folder) as worker:
        for target in targets:
            for number in itertools.count(1):
                yield (outcome := worker.read(target, -number))
                if outcome.is_last:
                    break
            for number in range(first, first + num_each):
                yield worker.read(target, number)


def main(arguments: Sequence[str]) -> None:
    """Runs the commands of the module's docstring."""
    if arguments[0] == "--show":
        sys.stdout.buffer.write(TARGETS[arguments[1]].content(arguments[1], int(arguments[2])))
        return
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in arguments[1:] or TARGETS:
            outcomes = list(run([target], int(arguments[0]), Path(folder)))
            mutated = [each for each in outcomes if each.number >= 0]
            counts = collections.Counter(each.outcome for each in mutated)
            slowest, largest = (max(getattr(each, name) for each in mutated) for name in ("seconds", "growth"))
            listed = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
            claims = [each for each in outcomes if each.number < 0 and not each.is_seed]
            largest_claim = max((each.growth for each in claims), default=0)
            listed += f"; {len(claims)} claims, largest {largest_claim:.0f} MiB"
            print(f"{target}: {len(mutated)}: {listed}; slowest {slowest:.2f} s, largest {largest:.0f} MiB", flush=True)
            found: dict[str, list[Outcome]] = {}
            for each in outcomes:
                if each.fault:
                    found.setdefault(each.kind, []).append(each)
            for kind, alike in found.items():
                faults += len(alike)
                numbers = " ".join(str(each.number) for each in alike[:20])
                print(f"  {len(alike)} {kind}\n    numbers {numbers}", flush=True)
    print(f"{faults} faults")


if __name__ == "__main__":
    main(sys.argv[1:])

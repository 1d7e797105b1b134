"""`make soak`: trains on AN4 for an hour, with a kill every few minutes and other faults.

It continues where it was stopped. Every start must continue from the last undamaged checkpoint, and a long-lived
process must not grow in memory, open files or threads. Faults and findings are printed and stored in soak.jsonl.
"""

import dataclasses
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from ds2_jax.runs.run_folder import last_step, saved_steps

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_SAMPLES = 5.0
SETTLED_SECONDS = 120.0
"""Time after which a process has compiled everything, so that its memory should not grow."""
LONG_SECONDS = 600.0
"""Length of every fifth life, in which a leak would show."""
FULL_DISK_BYTES = 200_000


@dataclasses.dataclass(frozen=True)
class Soak:
    """Trains on AN4 with faults."""

    archive: Path = Path(os.environ.get("DS2_JAX_AN4", ROOT.parent / "shared/data/an4_sphere.tar.gz"))
    """Archive of AN4."""
    folder: Path = Path("runs/soak")
    """Folder for the run and soak.jsonl."""
    minutes: float = 60.0
    """Length of the training over all starts."""
    seed: int = 0


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()


def terminate(process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def pause(process: subprocess.Popen[bytes]) -> None:
    """Suspends the process for a while, as closing a laptop does, then kills it."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(20)
    process.send_signal(signal.SIGCONT)
    time.sleep(20)
    process.kill()


ENDS: dict[str, Callable[[subprocess.Popen[bytes]], None]] = {"kill": kill, "terminate": terminate, "pause": pause}
EXIT_CODES = {"kill": -signal.SIGKILL, "pause": -signal.SIGKILL, "terminate": 143}
FAULTS = ("none", "none", "flipped bit", "torn line", "leftover", "full disk")
"""Faults of the run's folder before a start."""


def damage(run: Path, fault: str) -> int | None:
    """Damages a run as a crash or a disk would. Returns the step from which the next start must continue."""
    steps = saved_steps(run)
    if not steps or fault in {"none", "full disk"}:
        return last_step(run)
    newest = steps[-1]
    if fault == "torn line":
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 99, "lo')
    if fault == "leftover":
        (run / f"checkpoints/{newest + 1}.orbax-checkpoint-tmp/state").mkdir(parents=True, exist_ok=True)
    if fault == "flipped bit" and len(steps) > 1:
        path = max((run / f"checkpoints/{newest}/state").rglob("d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return steps[-2]
    return newest


def measure(pid: int) -> dict[str, float]:
    """Measures a process: resident memory in MiB, open files and threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident, threads = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads"))
    return {"mib": resident / 1024, "files": len(list(Path(f"/proc/{pid}/fd").iterdir())), "threads": threads}


def live(soak: Soak, run: Path, seconds: float, end: str, full_disk: bool) -> dict[str, Any]:
    """Starts training, measures it, ends it, and returns what was observed."""
    words = ["main.py", "--config", "configs/an4_cpu.py", "--workdir", str(run), "--data.archive", str(soak.archive)]
    words += ["--epochs", "1000", "--checkpoint.every-minutes", "0.5"]
    limit = (FULL_DISK_BYTES, resource.RLIM_INFINITY)
    with (soak.folder / "soak.err").open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) if full_disk else None,
        )
    started, samples = time.monotonic(), []
    try:
        while time.monotonic() - started < seconds and process.poll() is None:
            time.sleep(SECONDS_BETWEEN_SAMPLES)
            if time.monotonic() - started > SETTLED_SECONDS and process.poll() is None:
                samples.append({"seconds": time.monotonic() - started, **measure(process.pid)})
        if process.poll() is None:
            ENDS[end](process)
        code = process.wait(timeout=300)
    finally:
        process.kill()  # if this test is stopped, training would continue, or stay suspended, and hold the lock
    said = (soak.folder / "soak.err").read_text(errors="replace")
    continued = re.search(r"continuing after step (\d+)", said)
    return {
        "seconds": time.monotonic() - started,
        "code": code,
        "continued": int(continued[1]) if continued else None,
        "said": said[:2000] + said[-2000:],
        "samples": samples,
    }


def problem_of(life: dict[str, Any]) -> str | None:
    """Describes what is wrong with a life; None if nothing is."""
    if "Traceback" in life["said"]:
        return "a traceback"
    if life["fault"] == "full disk":
        named = "must have room for a checkpoint" in life["said"] or "must be writable" in life["said"]
        unmet = life["code"] == -signal.SIGKILL  # it was killed before it saved anything
        return None if unmet or (life["code"] == 1 and named) else "a full disk that is not named"
    if life["code"] != EXIT_CODES[life["end"]]:
        return f"exit code {life['code']}"
    began = life["continued"] is not None or "compiling for" in life["said"]
    if began and life["continued"] != life["expected"]:
        return f"step {life['continued']} instead of {life['expected']}"
    if began and life["expected"] != life["newest"] and ".damaged" not in life["said"]:
        return "damage that is not told"
    return None


def growth(lives: list[dict[str, Any]]) -> list[str]:
    """Compares memory, files and threads of the long lives between their first and their last third."""
    lines = []
    for life in lives:
        samples = life["samples"]
        if len(samples) < 30:
            continue
        third = len(samples) // 3
        shown = []
        for name in ("mib", "files", "threads"):
            first, last = (float(np.median([s[name] for s in part])) for part in (samples[:third], samples[-third:]))
            shown.append(f"{name} {first:.0f} -> {last:.0f}")
        lines.append(f"  {samples[-1]['seconds'] / 60:.0f} minutes: {', '.join(shown)}")
    return lines


def main() -> int:
    """Runs the soak test. The exit code is 1 if it finds a fault."""
    soak = tyro.cli(Soak, description=__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # runs the `finally` blocks
    soak.folder.mkdir(parents=True, exist_ok=True)
    log, run = soak.folder / "soak.jsonl", soak.folder / "run"
    lives = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    while sum(life["seconds"] for life in lives) < 60 * soak.minutes:
        draw = random.Random(f"{soak.seed} {len(lives)}")
        seconds = LONG_SECONDS if len(lives) % 5 == 4 else draw.uniform(60, 240)
        end, fault = draw.choice([*ENDS]), draw.choice(FAULTS)
        newest = last_step(run)
        life: dict[str, Any] = {"fault": fault, "end": end, "newest": newest, "expected": damage(run, fault)}
        life |= live(soak, run, seconds, end, fault == "full disk")
        life["problem"] = problem_of(life)
        lives.append(life)
        with log.open("a") as file:
            file.write(json.dumps(life) + "\n")
        told = life["problem"] or "as it must be"
        print(
            f"{len(lives)}: {fault}, {end} after {life['seconds']:.0f} s at step {last_step(run)}: {told}", flush=True
        )
    print(
        "ends:", dict(Counter(life["end"] for life in lives)), "faults:", dict(Counter(life["fault"] for life in lives))
    )
    print("long lives, medians of the first and the last third:", *growth(lives), sep="\n")
    problems = [life["problem"] for life in lives if life["problem"]]
    print(f"{len(lives)} starts, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

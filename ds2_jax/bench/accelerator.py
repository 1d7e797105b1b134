"""Measures training steps on an accelerator; `deploy/accelerator.sh` runs it.

It needs JAX, Flax, Optax and NumPy alone, and works with newer versions than the pinned ones. PyTorch, if it is there,
runs the same model with cuDNN's LSTM. A part that fails is told, and the next one follows.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ds2_jax.bench.size import Size

SECONDS = 420.0
"""No part is started later than this. The whole takes less than eight minutes."""
RUNS = 5
ON_ACCELERATOR = (Size(3, 512, 32, 1501), Size(5, 1024, 32, 1501))
ON_CPU = (Size(2, 32, 4, 201), Size(3, 64, 4, 201))
"""Small ones, to try the script where there is no accelerator."""
LABELS_PER_SECOND = 14
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
DType = Literal["float32", "bfloat16"]
Parallel = Literal["shard_map", "pmap"]


def main() -> int:
    """Prints versions, devices and a table; returns 1 if a part failed."""
    started = time.perf_counter()
    versions = {name: _version(name) for name in PACKAGES}
    print(f"python {sys.version.split()[0]}, " + ", ".join(f"{name} {each}" for name, each in versions.items()))
    import jax

    devices = jax.devices()
    print(f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})")
    sizes = ON_CPU if devices[0].platform == "cpu" else ON_ACCELERATOR
    print(f"\n{'training step':44} {'s':>8} {'hours an hour':>14} {'compile, s':>11} {'arrays, MiB':>12}", flush=True)
    parallels: tuple[Parallel, ...] = ("shard_map", "pmap")
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    parts: list[tuple[str, Callable[[], str]]] = [
        (f"{size}, {dtype}, {parallel}", functools.partial(measure, size, dtype, parallel))
        for parallel, size, dtype in itertools.product(parallels, sizes, dtypes)
    ]
    if versions["torch"]:
        parts[4:4] = [
            (f"{size}, {dtype}, PyTorch", functools.partial(_in_child, size, dtype))
            for size, dtype in itertools.product(sizes, dtypes)
        ]
    failed = False
    for name, part in parts:
        if time.perf_counter() - started > SECONDS:
            print(f"{name:44} left out: {SECONDS:g} s are over")
            continue
        try:
            print(f"{name:44} {part()}", flush=True)
        except Exception as error:  # the other parts are worth knowing
            failed = True
            print(f"{name:44} failed: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
            traceback.print_exc()
    print(f"\n{time.perf_counter() - started:.0f} s")
    return int(failed)


def measure(size: Size, dtype: DType, parallel: Parallel) -> str:
    """Compiles a training step and times `RUNS` calls; returns a row of the table."""
    import jax
    import jax.numpy as jnp

    from ds2_jax.model.optimizer import make_optimizer
    from ds2_jax.model.update import init_state, train_step
    from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate
    from ds2_jax.training.memory import held_bytes

    config = dataclasses.replace(
        size.config, parallel=parallel, model=dataclasses.replace(size.config.model, dtype=dtype)
    )
    batch, num_labels = make_batch(size), len(config.data.alphabet) + 1
    tx = make_optimizer(config, steps_per_epoch=1000, total_steps=70_000)
    mesh = data_mesh()
    step = functools.partial(train_step, config=config, num_labels=num_labels, tx=tx)
    state: Any = replicate(init_state(config, num_labels, tx), mesh)
    function: Any = parallel_train_step(step, mesh, parallel)
    started = time.perf_counter()
    compiled = function.lower(state, batch, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    for _ in range(1 + RUNS):
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, *metrics = function(state, batch, jnp.int32(0))
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    return row(size, seconds[1:], compile_seconds, held_bytes(compiled) / 2**20)


def measure_torch(size: Size, dtype: DType) -> str:
    """Times the same model and step in PyTorch, with autocast for bfloat16; returns a row of the table."""
    from ds2_jax.bench import peer  # this import loads PyTorch

    batch = make_batch(size)
    seconds, mebibytes = peer.time_steps(size, batch["labels"], batch["num_labels"], dtype == "bfloat16", 1 + RUNS)
    return row(size, seconds[1:], float("nan"), mebibytes)


def row(size: Size, seconds: list[float], compile_seconds: float, mebibytes: float) -> str:
    """Formats the columns of the table."""
    median = statistics.median(seconds)
    hours = sum(size.frames_of_rows) / 100 / median
    return f"{median:8.4f} {hours:14,.0f} {compile_seconds:11.1f} {mebibytes:12,.0f}"


def make_batch(size: Size) -> dict[str, np.ndarray]:
    """Makes rows of noise of falling length, with as many labels a second as read English has."""
    rng = np.random.default_rng(0)
    hop, rate = size.config.features.hop_length, size.config.features.sample_rate
    num_samples = np.array(size.frames_of_rows, np.int32) * hop - 1
    inside = np.arange(num_samples.max()) < num_samples[:, None]
    num_labels = np.maximum(1, num_samples * LABELS_PER_SECOND // rate).astype(np.int32)
    labels = rng.integers(1, len(size.config.data.alphabet), (size.batch_size, num_labels.max()), np.int32)
    return {
        "waveforms": np.where(inside, 0.1 * rng.standard_normal(inside.shape, np.float32), np.float32(0)),
        "num_samples": num_samples,
        "labels": np.where(np.arange(labels.shape[1]) < num_labels[:, None], labels, 0),
        "num_labels": num_labels,
        "indices": np.arange(size.batch_size, dtype=np.int32),
    }


def _in_child(size: Size, dtype: DType) -> str:
    """Runs `measure_torch` in a process of its own, whose memory is given back."""
    words = [sys.executable, "-m", "ds2_jax.bench.accelerator", dtype, *map(str, dataclasses.astuple(size))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout.rstrip("\n")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    wanted: DType = "bfloat16" if sys.argv[1] == "bfloat16" else "float32"
    print(measure_torch(Size(*map(int, sys.argv[2:])), wanted))

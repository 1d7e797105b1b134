"""train --dry-run: prints the batch plan and the memory of a step, and tries one real batch."""

import dataclasses
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.frames import count_frames
from ds2_jax.data.epochs import Epochs
from ds2_jax.data.manifest import Problem, count_reasons
from ds2_jax.data.pipeline import Perturb
from ds2_jax.data.plan import PlannedBatch, summarise
from ds2_jax.data.splits import Split
from ds2_jax.model import update as update_lib
from ds2_jax.model.optimizer import make_optimizer
from ds2_jax.model.update import init_state
from ds2_jax.parallel.mesh import data_mesh, parallel_train_step, replicate, row_layout
from ds2_jax.runs import run_folder
from ds2_jax.system.errors import InputError
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.training import memory
from ds2_jax.training.remaining import check_start, checkpoints_of, describe_more_epochs, why_finished
from ds2_jax.training.splits import make_stream, read_splits, with_units
from ds2_jax.training.watch import doubts

logger = logging.getLogger(__package__)

TINY = {"hidden_size": 4, "num_layers": 2, "channels": (1, 1)}
"""Sizes of the model that tries the largest batch; they replace those of the configuration."""


def dry_run(config: Config, workdir: Path, overwrite: bool = False) -> None:
    """Prints what training would do, and tries what can be tried in seconds.

    It reads everything that training reads at its start, so it stops on the same errors with the same messages. It
    writes nothing into the run's folder. It prepares `data.corpus` if that has not been done.

    Args:
        config: settings of the run.
        workdir: folder that the run would have.
        overwrite: whether training would delete the run in that folder.

    Raises:
        InputError: settings, data or the run folder are wrong, the largest batch cannot be read or gives no finite
            loss and gradient, or its step does not fit the device.
    """
    config = with_units(config, workdir)
    splits = read_splits(config)
    with checkpoints_of(workdir, config, splits) as checkpoints:
        check_start(workdir, config, overwrite, checkpoints)
    mesh = data_mesh()
    epochs = Epochs(config, splits["train"])
    plan = epochs.plan(0)
    for doubt in doubts(config, len(plan)):
        logger.warning(doubt)
    layout = row_layout(mesh, config.optim.accumulate)
    largest = max(plan, key=lambda batch: len(layout.rows(batch.indices)) * batch.padded_samples)
    print("\n".join(plan_lines(plan, epochs.num_samples(0), config, splits)))
    print("\n".join(memory_lines(largest, config, splits["train"], mesh)))
    print(try_batch(largest, config, splits["train"], mesh, epochs.perturb(0)))
    print(prospects(workdir, config, overwrite, splits, len(plan)))


def prospects(workdir: Path, config: Config, overwrite: bool, splits: Mapping[str, Split], num_steps: int) -> str:
    """Says what the same command without --dry-run would do.

    Args:
        workdir: folder that the run would have.
        config: settings of the run.
        overwrite: whether training would delete the run in that folder.
        splits: the splits train, dev and test.
        num_steps: steps of an epoch.
    """
    step = None if overwrite else run_folder.last_step(workdir)
    if step is None:
        return f"To train in {workdir}, run the same command without --dry-run."
    with checkpoints_of(workdir, config, splits) as checkpoints:
        if reason := why_finished(config, checkpoints, num_steps):
            return f"The run in {workdir} is finished: {reason}."
    if told := describe_more_epochs(workdir, config, num_steps):
        logger.info(told)
    return f"To continue in {workdir} after step {step}, run the same command without --dry-run."


def plan_lines(
    plan: Sequence[PlannedBatch], num_samples: np.ndarray, config: Config, splits: Mapping[str, Split]
) -> list[str]:
    """Describes the splits and the batches of an epoch, with one line for each batch shape.

    Args:
        plan: batches of the epoch.
        num_samples: [utterances] int, samples of each training utterance in that epoch.
        config: settings of the run.
        splits: the splits train, dev and test.
    """
    lines = []
    for name, split in splits.items():
        hours = sum(utterance.duration for utterance in split.utterances) / 3600
        left_out = f"; left out: {count_reasons(split.problems)}" if split.problems else ""
        lines.append(f"{name}: {len(split.utterances):,} utterances, {hours:.2f} hours{left_out}")
    features = config.features
    summary = summarise(plan, num_samples, hop_length=features.hop_length)
    lines += [
        f"an epoch: {len(plan):,} batches; {summary.padding:.1%} of the frames in their rows are padding, "
        f"{summary.num_empty_rows:,} rows stay empty ({summary.empty_frames:.1%} of all frames); "
        f"{len(plan) * config.epochs:,} steps in {config.epochs} epochs"
    ]
    for bucket in summary.buckets:
        seconds = bucket.num_frames * features.window_stride
        lines.append(f"  {bucket.num_batches:6,} batches of {bucket.num_rows:5,} x {seconds:5.2f} s")
    return lines


def memory_lines(largest: PlannedBatch, config: Config, split: Split, mesh: jax.sharding.Mesh) -> list[str]:
    """Describes the memory of a step with the largest batch, by the compiler's figures.

    Raises:
        InputError: the step needs more memory than the device has.
    """
    rows = len(row_layout(mesh, config.optim.accumulate).rows(largest.indices))
    num_frames = count_frames(largest.padded_samples, config.features.hop_length)
    device = jax.devices()[0].device_kind
    logger.info(f"compiling the step of the largest batch for {device}, to find how much memory it needs")
    compiled = memory.compiled_bytes(
        config,
        split.alphabet.size,
        num_rows=rows,
        padded_samples=largest.padded_samples,
        label_width=split.labels.width,
        mesh=mesh,
    )
    parts = config.optim.accumulate
    in_parts = f" in {parts} parts, one after the other" if parts > 1 else ""
    lines = [
        f"memory of a step with the largest batch, {rows} x {num_frames * config.features.window_stride:.2f} s"
        f"{in_parts}, on each device ({mesh.size} x {device}): {compiled / 2**20:,.0f} MiB",
        "  by the compiler's figures; not counted: the framework's own memory, fragmentation, and the work space of an "
        "accelerator's libraries",
    ]
    limit = device_limit()
    if limit is not None and compiled > limit:
        raise InputError(
            f"data.batch_seconds (or data.batch_size) must make the step fit into the {limit / 2**20:,.0f} MiB that "
            f"the device has for arrays, got a step of {compiled / 2**20:,.0f} MiB. {command('data', 'batch-seconds')} "
            "prints the largest value that fits."
        )
    return lines


def device_limit() -> int | None:
    """Returns the bytes that JAX has for arrays on a device; None if JAX does not report them, as on a CPU."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(limit)


def try_batch(
    batch: PlannedBatch, config: Config, split: Split, mesh: jax.sharding.Mesh, perturb: Perturb | None = None
) -> str:
    """Reads the recordings of a batch and makes one update of a tiny model with them, as training would.

    Returns:
        One line that describes the trial.

    Raises:
        InputError: a recording cannot be used and data.on_bad_utterance is "error", no recording can be used, or the
            loss or its gradient is not finite.
    """
    tiny: dict[str, Any] = TINY
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **tiny))
    alphabet = Alphabet.of(config.data)
    problems: list[Problem] = []
    collect = problems.append if config.data.on_bad_utterance == "skip" else None
    started = time.perf_counter()
    layout = row_layout(mesh, config.optim.accumulate)
    [arrays] = make_stream([batch], split, config, layout, collect, perturb)
    read = time.perf_counter() - started
    for problem in problems:
        logger.info(f"left out: {problem.id} ({problem.reason}: {problem.detail})")

    tx = make_optimizer(config, steps_per_epoch=1, total_steps=1)
    step = functools.partial(update_lib.train_step, config=config, num_labels=alphabet.size, tx=tx)
    train_step = parallel_train_step(step, mesh, config.parallel)
    state = replicate(init_state(config, alphabet.size, tx), mesh)
    _, metrics, _ = train_step(state, arrays, jnp.int32(0))
    values = {name: float(value) for name, value in metrics.items()}
    counts = f"{int((arrays['indices'] >= 0).sum()):,} utterances, {len(problems)} of the batch unusable"
    if not values["alignable"]:
        raise InputError(
            f"data.train must hold utterances that can be read and aligned, got {counts}. "
            "Correct the recordings or the manifest."
        )
    if not np.isfinite([values["loss"], values["grad_norm"]]).all():
        names = ", ".join(split.utterances[index].id for index in arrays["indices"] if index >= 0)
        raise InputError(
            f"The loss and its gradient must be finite, got a loss of {values['loss']} and a gradient norm of "
            f"{values['grad_norm']} with a tiny model, utterances {names}. Listen to these recordings."
        )
    model = f"a tiny model ({config.model.num_layers} layers of {config.model.hidden_size} units)"
    return (
        f"tried the largest batch with {model}: {counts}; read in {read:.1f} s; forward, backward and update; "
        f"loss {values['loss']:.1f}"
    )

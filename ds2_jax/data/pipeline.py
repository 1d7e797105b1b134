"""Reads the batches of a plan into padded arrays, in parallel and ahead of time, with tf.data.

tf.data draws nothing at random. It only reads the batches in the order of the plan.
"""

import atexit
import dataclasses
import functools
import json
import os
import traceback
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.plan import PlannedBatch
from ds2_jax.data.splits import Split
from ds2_jax.data.tensorflow import load_tensorflow
from ds2_jax.data.usable import too_few_frames, wrong_duration
from ds2_jax.parallel.rows import ONE_DEVICE, RowLayout
from ds2_jax.system.errors import InputError

Arrays = dict[str, np.ndarray]
Batches = Generator[Arrays, None, None]
Row = tuple[np.ndarray, np.ndarray]  # waveform [S] float32, labels
Perturb = Callable[[int, np.ndarray], np.ndarray]

DTYPES = {"waveforms": "float32", "num_samples": "int32", "labels": "int32", "num_labels": "int32", "indices": "int32"}
PREFETCHED_BATCHES = 2

_open_batches: weakref.WeakSet[Batches] = weakref.WeakSet()


def batches(
    plan: Sequence[PlannedBatch],
    split: Split,
    *,
    sample_rate: int,
    hop_length: int,
    layout: RowLayout = ONE_DEVICE,
    num_workers: int = 0,
    time_reduction: int | None = None,
    perturb: Perturb | None = None,
    on_problem: Callable[[Problem], None] | None = None,
) -> Batches:
    """Reads the batches of a plan.

    Args:
        plan: the batches to read, in order. To resume an epoch, leave out the batches that were read before.
        split: the utterances that the plan's indices refer to.
        sample_rate: sample rate of the waveforms in Hz.
        hop_length: samples between frames. Because durations are rounded, a file may be longer than its manifest says
            by less than one hop. It may be shorter by up to a tenth.
        layout: which rows of each batch are read, and in which order.
        num_workers: number of batches whose audio is read at once; 0 means one per core.
        time_reduction: spectrogram frames per output frame. In training, it excludes recordings whose real length
            gives CTC too few output frames. In evaluation, None keeps them.
        perturb: changes the waveform [S] of the utterance with a given index, to the length that the plan expects.
        on_problem: called for every utterance that cannot be used, in the order of the plan; its row stays empty. With
            None, such an utterance raises InputError.

    Yields:
        waveforms: [B, S] float32, samples in [-1, 1], zeros after `num_samples`.
        num_samples: [B] int32, valid samples; 0 for an empty row.
        labels: [B, N] int32, zeros after `num_labels`; N is the same in every batch of the split.
        num_labels: [B] int32; 0 for an empty row.
        indices: [B] int32, indices of the split's utterances; -1 for an empty row.

    Raises:
        InputError: while iterating without `on_problem`: a file cannot be read, has another duration than its manifest
            says, or is too short for its transcript.
        RuntimeError: while iterating: any other error; the message names the utterance.
    """
    all_labels = split.labels
    label_width = all_labels.width

    def read_row(index: int) -> Row | Problem:
        utterance, labels = split.utterances[index], all_labels[index]
        try:
            waveform = _read_utterance(utterance, sample_rate, hop_length)
            if isinstance(waveform, Problem):
                return waveform
            if time_reduction is not None and (
                problem := too_few_frames(utterance, labels.tolist(), len(waveform), hop_length, time_reduction)
            ):
                return problem
            try:
                return (waveform if perturb is None else perturb(index, waveform)), labels
            except InputError as error:
                return Problem(utterance.id, str(utterance.audio), "unreadable noise or response", str(error))
        except Exception:  # a bug, which is never skipped: `_generate` raises it
            return Problem(utterance.id, str(utterance.audio), "unexpected error", traceback.format_exc())

    def read(batch: PlannedBatch) -> tuple[Arrays, list[Problem]]:
        return _read_batch(layout.rows(batch.indices), batch.padded_samples, label_width, read_row)

    generator = _generate(plan, read, num_workers or os.cpu_count() or 1, on_problem)
    _open_batches.add(generator)
    return generator


def _generate(
    plan: Sequence[PlannedBatch],
    read: Callable[[PlannedBatch], tuple[Arrays, list[Problem]]],
    num_workers: int,
    on_problem: Callable[[Problem], None] | None,
) -> Batches:
    tf = load_tensorflow()
    _close_at_exit()

    def read_step(step: np.int64) -> list[Any]:
        arrays, problems = read(plan[int(step)])
        # TensorFlow would wrap an exception in the text of its graph, so problems are returned as data.
        return [*arrays.values(), json.dumps([dataclasses.asdict(problem) for problem in problems]).encode()]

    options = tf.data.Options()
    options.threading.private_threadpool_size = num_workers
    # There is nothing to tune, and closing the iterator waits for the tuner, which sleeps twice as long each time. With
    # it, an epoch of 30 s took 41 s, and one of 57 s took 82 s.
    options.autotune.enabled = False
    dataset = (
        tf.data.Dataset.range(len(plan))
        .map(
            lambda step: tf.numpy_function(read_step, [step], [*DTYPES.values(), "string"]),
            num_parallel_calls=num_workers,
            deterministic=True,
        )
        .prefetch(PREFETCHED_BATCHES)
        .with_options(options)
    )
    # The loop holds the only reference to TensorFlow's iterator. So the iterator ends with the loop, even if the
    # traceback of an error keeps this frame alive.
    for *arrays, problems in dataset.as_numpy_iterator():
        for problem in (Problem(**fields) for fields in json.loads(problems)):
            if problem.reason == "unexpected error":
                raise RuntimeError(f"Utterance {problem.id}, {problem.audio}: {problem.detail}")
            if on_problem is None:
                raise InputError(f"Utterance {problem.id}: {problem.detail}")
            on_problem(problem)
        yield dict(zip(DTYPES, arrays, strict=True))


def _read_batch(
    indices: np.ndarray, padded_samples: int, label_width: int, read_row: Callable[[int], Row | Problem]
) -> tuple[Arrays, list[Problem]]:
    shapes = {"waveforms": (len(indices), padded_samples), "labels": (len(indices), label_width)}
    arrays = {name: np.zeros(shapes.get(name, len(indices)), dtype) for name, dtype in DTYPES.items()}
    arrays["indices"][:] = -1
    problems = []
    for row, index in enumerate(indices.tolist()):
        if index < 0:
            continue
        content = read_row(index)
        if isinstance(content, Problem):
            problems.append(content)
            continue
        waveform, labels = content
        arrays["waveforms"][row, : len(waveform)] = waveform
        arrays["num_samples"][row] = len(waveform)
        arrays["labels"][row, : len(labels)] = labels
        arrays["num_labels"][row] = len(labels)
        arrays["indices"][row] = index
    return arrays, problems


def _read_utterance(utterance: Utterance, sample_rate: int, hop_length: int) -> np.ndarray | Problem:
    try:
        waveform = utterance.read(sample_rate)
    except InputError as error:
        return Problem(utterance.id, str(utterance.audio), "unreadable audio", str(error))
    return wrong_duration(utterance, len(waveform), sample_rate, hop_length) or waveform


def _close_open_batches() -> None:
    for generator in list(_open_batches):
        generator.close()


@functools.cache
def _close_at_exit() -> None:
    """Closes open batches before the interpreter ends: a decoder that waits for the GIL then would wait for ever."""
    atexit.register(_close_open_batches)

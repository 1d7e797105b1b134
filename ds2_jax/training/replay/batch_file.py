"""The file RUN/replay/step-K.npz: the batch of a step whose loss or gradient was not finite.

The file is a NumPy archive of uncompressed arrays: the arrays of the batch, and `about`, which contains JSON in UTF-8.
The file is written atomically. Reading it unpickles nothing and needs no more memory than the size of the file.
"""

import dataclasses
import json
import math
import os
import struct
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from ds2_jax.data.manifest import Utterance
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import writing
from ds2_jax.system.program import command

FOLDER = "replay"
ABOUT = "about"
DTYPES = {"waveforms": "<f4", "num_samples": "<i4", "labels": "<i4", "num_labels": "<i4", "indices": "<i4"}
AXES = {"waveforms": 2, "labels": 2}
LONGEST_HEADER = 200
"""Largest size in bytes of an array's header, a Python literal that NumPy parses. NumPy writes 118 bytes."""
LARGEST = 2**31 - 1
DAMAGE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, struct.error),
    *(KeyError, OSError, OverflowError, SyntaxError, TypeError, ValueError, tokenize.TokenError),
)
"""Exceptions of zipfile, NumPy and json for a damaged file, including deep nesting (RecursionError)."""


@dataclasses.dataclass(frozen=True)
class FailedStep:
    """A training step whose loss or gradient was not finite, as one process saw it.

    Attributes:
        step: number of the step; the checkpoint of `step` - 1 holds the state before it.
        epoch: counted from 0.
        loss: nats per utterance, over all processes.
        grad_norm: norm of the gradient before clipping.
        steps_per_epoch: steps of an epoch of the run.
        num_devices: devices of all processes.
        num_processes: number of processes; each writes its rows to its own file.
        process_index: index of this process.
        made_on: devices and JAX version, in words.
        ids: id of the utterance in each row; "" for an empty row.
        audio: path of the recording in each row; "" for an empty row.
        batch: rows of this process, as `data.pipeline.batches` yields them.
    """

    step: int
    epoch: int
    loss: float
    grad_norm: float
    steps_per_epoch: int
    num_devices: int
    num_processes: int
    process_index: int
    made_on: str
    ids: list[str]
    audio: list[str]
    batch: Mapping[str, np.ndarray]

    @classmethod
    def met(
        cls,
        step: int,
        epoch: int,
        metrics: Mapping[str, Any],
        batch: Mapping[str, np.ndarray],
        utterances: Sequence[Utterance],
        steps_per_epoch: int,
    ) -> Self:
        """Makes the record of a failed step in this process.

        Args:
            step: number of the step.
            epoch: counted from 0.
            metrics: metrics of the step.
            batch: rows of this process.
            utterances: utterances of the training split.
            steps_per_epoch: steps of an epoch of the run.
        """
        rows = [utterances[index] if index >= 0 else None for index in batch["indices"].tolist()]
        return cls(
            step,
            epoch,
            float(metrics["loss"]),
            float(metrics["grad_norm"]),
            steps_per_epoch,
            num_devices=jax.device_count(),
            num_processes=jax.process_count(),
            process_index=jax.process_index(),
            made_on=f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
            ids=[row.id if row else "" for row in rows],
            audio=[str(row.audio) if row else "" for row in rows],
            batch=batch,
        )

    def path(self, run: Path) -> Path:
        """Returns the path of this process's file in the folder of a run."""
        part = f".{self.process_index + 1}-of-{self.num_processes}" if self.num_processes > 1 else ""
        return run / FOLDER / f"step-{self.step}{part}.npz"


def write_batch(run: Path, failed: FailedStep) -> Path:
    """Writes the file of a step, replacing an older one.

    Raises:
        InputError: the file cannot be written.
    """
    about = {name: value for name, value in vars(failed).items() if name != "batch"}
    path = failed.path(run)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    **{ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)},
                    **{name: np.asarray(failed.batch[name], dtype) for name, dtype in DTYPES.items()},
                )
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    return path


def replay_hint(path: Path) -> str:
    """Returns the sentence that tells the user what to do with a file of `write_batch`."""
    size = path.stat().st_size / 2**20
    return f"{path} holds the batch ({size:.1f} MiB): {command('replay', path)} shows the cause."


def read_batch(path: Path) -> FailedStep:
    """Reads the file of a step, and the files of the other processes beside it.

    Returns:
        The step with the rows of all processes, in the order of the processes.

    Raises:
        InputError: a file is missing or damaged, has other contents, or belongs to another step than the first.
    """
    first = _read_part(path)
    if first.num_processes == 1:
        return first
    parts = []
    for i in range(first.num_processes):
        other = path.with_name(dataclasses.replace(first, process_index=i).path(Path()).name)
        parts.append(_read_part(other))
        if _whole(parts[i]) != _whole(first) or parts[i].process_index != i:
            raise InputError(
                f"{other} must be part {i + 1} of the step in {path}, got another step or part. Copy all parts of one "
                "step."
            )
    batch = {name: np.concatenate([part.batch[name] for part in parts]) for name in DTYPES}
    ids, audio = ([row for part in parts for row in getattr(part, name)] for name in ("ids", "audio"))
    return dataclasses.replace(first, batch=batch, ids=ids, audio=audio)


def _whole(part: FailedStep) -> tuple[Any, ...]:
    """Returns the values that all parts of a step must share."""
    widths = [value.shape[1:] for value in part.batch.values()]
    return part.step, part.epoch, part.steps_per_epoch, part.num_devices, part.num_processes, widths


def _read_part(path: Path) -> FailedStep:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        raise InputError(
            f"FILE must be a batch that training has saved, got {path}, which is not a file. Give "
            "RUN/replay/step-K.npz; with several processes, the files of all must be in the same folder."
        )
    try:
        arrays = _read_arrays(path)
        about = json.loads(arrays.pop(ABOUT).tobytes())
        fields = {field.name for field in dataclasses.fields(FailedStep)}
        if not isinstance(about, dict) or about.keys() != fields - {"batch"}:
            raise ValueError("no description of the step")
        failed = FailedStep(batch=arrays, **about)
        _check(failed)
    except DAMAGE as error:
        reason = shorten(str(error) or type(error).__name__, 200)
        raise InputError(
            f"{path} must be an undamaged batch that training has saved, got: {reason}. Copy it again, or continue "
            "the run without --overwrite, until this step fails again."
        ) from error
    return failed


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(member.filename for member in members) != sorted(f"{name}.npy" for name in (ABOUT, *DTYPES)):
            raise ValueError("an archive of other arrays")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise ValueError("arrays that are compressed or encrypted")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("arrays larger than the file")
        return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Reads an array as `numpy.load` does, after checking that its header gives the size of its part of the file."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
        if version != (1, 0) or is_fortran or dtype.kind not in "fiu" or min(shape, default=0) < 0:
            raise ValueError("an array of another format")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"an array of another size than {shape}")
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False, max_header_size=LONGEST_HEADER)
        return array


def _check(failed: FailedStep) -> None:
    """Raises ValueError unless all fields have their types and ranges and fit each other."""
    for name, least in (("step", 1), ("epoch", 0), ("steps_per_epoch", 1), ("num_devices", 1), ("num_processes", 1)):
        value = getattr(failed, name)
        if type(value) is not int or not least <= value <= LARGEST:
            raise ValueError(f"{name} {value!r}")
    if type(failed.process_index) is not int or not 0 <= failed.process_index < failed.num_processes:
        raise ValueError(f"process_index {failed.process_index!r} of {failed.num_processes}")
    if failed.num_devices % failed.num_processes:
        raise ValueError(f"{failed.num_devices} devices of {failed.num_processes} processes")
    for name in ("loss", "grad_norm"):
        if type(getattr(failed, name)) is not float:
            raise ValueError(f"{name} {getattr(failed, name)!r}")
    batch = failed.batch
    num_rows = len(batch["indices"]) if batch["indices"].ndim else 0
    if not num_rows or num_rows * failed.num_processes % failed.num_devices:
        raise ValueError(f"{num_rows} rows for {failed.num_devices} devices of {failed.num_processes} processes")
    for name, dtype in DTYPES.items():
        value = batch[name]
        if value.dtype != dtype or value.ndim != AXES.get(name, 1) or len(value) != num_rows:
            raise ValueError(f"{name} {value.dtype} {value.shape}")
    for count, of in (("num_samples", "waveforms"), ("num_labels", "labels")):
        if batch[count].min() < 0 or batch[count].max() > batch[of].shape[1]:
            raise ValueError(f"{count} outside 0 to {batch[of].shape[1]}")
    for name in ("ids", "audio"):
        rows = getattr(failed, name)
        if not isinstance(rows, list) or len(rows) != num_rows or not all(isinstance(row, str) for row in rows):
            raise ValueError(f"{name} that are not one string per row")
    if not isinstance(failed.made_on, str):
        raise ValueError("made_on that is not a string")

"""Writes one shard of a pack: its recordings as an ArrayRecord file, and a note of its contents.

The bytes of a shard depend only on its task, not on who writes the shards and in which order. The note is written after
the shard. A shard without its task's note is written again.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ds2_jax.audio.parts import AudioBytes, Source
from ds2_jax.audio.reading import encode_flac, fits_flac, lossless_flac, read_audio
from ds2_jax.data.length_table import TfdsRecord
from ds2_jax.data.manifest import Problem, Utterance
from ds2_jax.data.tfds import SplitRow, TfdsSplit, int16_samples, library, serialize
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.system.files import writing
from ds2_jax.system.interrupts import temporary_folder

NAME = "speech"
"""The name of every pack for TFDS; the names of the shards begin with it."""
NOTES = "unfinished"
"""The folder of the notes. It is in the pack's folder until the pack is complete."""
CHECK_RATE = 16_000  # Hz; any rate shows whether a recording can be decoded
COPIED, TO_FLAC, CUT = "copied", "16-bit samples as FLAC", "segments as WAV"


@dataclasses.dataclass(frozen=True)
class Task:
    """The contents of a shard: utterances of a manifest, or consecutive records of a TensorFlow data set.

    Attributes:
        out: folder of the pack.
        split: name of the split.
        number: index of the shard.
        num_shards: number of shards of the split.
        digest: digest of everything that the shard depends on.
        utterances: utterances of a manifest; empty for a data set.
        tfds: name of a data set; "" for a manifest.
        start: index of the first record.
        stop: index after the last record.
    """

    out: str
    split: str
    number: int
    num_shards: int
    digest: str
    utterances: tuple[Utterance, ...] = ()
    tfds: str = ""
    start: int = 0
    stop: int = 0

    @property
    def shard(self) -> Any:
        """Path of the shard's file."""
        return folder_path(self.out) / f"{NAME}-{self.split}.array_record-{self.number:05d}-of-{self.num_shards:05d}"

    @property
    def note(self) -> Any:
        """Path of the note."""
        return folder_path(self.out) / NOTES / f"{self.split}-{self.number:05d}.json"

    def __len__(self) -> int:
        return len(self.utterances) or self.stop - self.start


@dataclasses.dataclass(frozen=True)
class Note:
    """The contents of a shard that was written.

    Attributes:
        digest: digest of the task.
        num_bytes: size of the shard.
        rows: one row for each record.
        kinds: how many recordings were copied, and how many were encoded.
        problems: why the other recordings are missing.
    """

    digest: str
    num_bytes: int
    rows: Sequence[SplitRow]
    kinds: Mapping[str, int]
    problems: Sequence[Problem]


def folder_path(folder: str) -> Any:
    """Makes a path to a folder on a disk or in a bucket (gs://), with the methods of pathlib."""
    from etils import epath

    return epath.Path(folder)


def pack_features() -> Any:
    """Returns the features of a pack; audio is a whole file in FLAC or another format that `read_audio` reads."""
    kinds = library().features
    audio = kinds.Tensor(shape=(), dtype=np.object_)
    return kinds.FeaturesDict({"audio": audio, "text": kinds.Text(), "id": kinds.Text(), "speaker": kinds.Text()})


def read_note(task: Task) -> Note | None:
    """Reads the note of a task whose shard is complete; None if the shard must be written."""
    if not (task.note.exists() and task.shard.exists()):
        return None
    try:
        fields = json.loads(task.note.read_text(encoding="utf-8"))
        rows = [SplitRow(*row) for row in fields.pop("rows")]
        problems = [Problem(**problem) for problem in fields.pop("problems")]
        note = Note(rows=rows, problems=problems, **fields)
    except (AttributeError, TypeError, KeyError, *NO_JSON):  # the file was cut off
        return None
    whole = note.digest == task.digest and note.num_bytes == task.shard.stat().length
    return note if whole else None


def write_shard(task: Task) -> None:
    """Writes a shard and then its note, unless both exist.

    Raises:
        InputError: a file cannot be written, or the data set cannot be read.
    """
    if read_note(task) is not None:
        return
    from array_record.python.array_record_module import ArrayRecordWriter

    features = pack_features()
    rows, problems, kinds = [], [], collections.Counter[str]()
    with _replacing(task.shard, task.note.parent) as path:
        try:
            writer = ArrayRecordWriter(str(path), "group_size:1")  # one record a chunk, for random access
            for content in _contents(task):
                if isinstance(content, Problem):
                    problems.append(content)
                    continue
                row, audio, kind = content
                example = {"audio": audio, "text": row.transcript, "id": row.id, "speaker": row.speaker}
                writer.write(serialize(features, example))
                rows.append(row)
                kinds[kind] += 1
            writer.close()
        except RuntimeError as error:  # the writer's error, for example if the disk is full
            raise InputError(
                f"{task.shard} must be writable, got: {error}. Make room and run the same command again."
            ) from error
        num_bytes = path.stat().st_size
    note = Note(task.digest, num_bytes, rows, dict(kinds), problems)
    with _replacing(task.note, task.note.parent) as path:
        path.write_text(json.dumps(dataclasses.asdict(note), ensure_ascii=False), encoding="utf-8")


@contextlib.contextmanager
def _replacing(target: Any, scratch: Any) -> Iterator[Path]:
    """Yields a path to write to, then replaces `target` with that file in one step. `scratch` is on the same disk."""
    local = "://" not in os.fspath(target)
    with writing(target):
        scratch.mkdir(parents=True, exist_ok=True)
        with temporary_folder(scratch if local else None) as folder:
            path = folder / target.name
            yield path
            if local:
                path.replace(target)
            else:
                folder_path(str(path)).copy(target, overwrite=True)


Content = tuple[SplitRow, bytes, str]


def _contents(task: Task) -> Iterator[Content | Problem]:
    """Yields the row, the audio file and its kind for each utterance of a task, or why it cannot be read."""
    if not task.tfds:
        for utterance in task.utterances:
            row = SplitRow(utterance.id, utterance.duration, utterance.transcript, utterance.speaker)
            try:
                yield row, *_stored(utterance)
            except InputError as error:
                yield Problem(utterance.id, str(utterance.audio), "unreadable audio", str(error))
        return
    split = _open_split(task.tfds)
    for index, record in enumerate(split.records(task.start, task.stop), start=task.start):
        row = split.row(record, index)
        try:
            yield row, *_stored_record(split, record, index)
        except InputError as error:
            yield Problem(row.id, f"{split.name}[{index}]", "unreadable audio", str(error))


def _stored(utterance: Utterance) -> tuple[bytes, str]:
    """Returns the audio to store for an utterance of a manifest, as `_audio_file` does."""
    if utterance.offset is not None:
        return _cut(*utterance.samples())
    if isinstance(utterance.record, TfdsRecord):
        split, index = utterance.record.split, utterance.record.index
        return _stored_record(split, split.record(index), index)
    return _audio_file(utterance.audio)


def _cut(samples: np.ndarray, sample_rate: int) -> tuple[bytes, str]:
    """Returns a file with the samples of a segment [S, C], which are floats: FLAC if 16 bits hold them, else WAV."""
    scaled = samples * np.float32(2**15)
    whole = scaled.astype(np.int16) if np.abs(scaled).max(initial=0.0) <= 2**15 - 1 else np.zeros(0, np.int16)
    if np.array_equal(whole, scaled) and fits_flac(samples.shape[1], sample_rate):
        return encode_flac(whole, sample_rate), TO_FLAC
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue(), CUT


def _stored_record(split: TfdsSplit, record: bytes, index: int) -> tuple[bytes, str]:
    """Returns the audio to store for a record of a data set, as `_audio_file` does."""
    audio = split.audio(record, index)
    if isinstance(audio, AudioBytes):
        return _audio_file(audio)
    rate, name = split.features.sample_rate, f"{split.name}[{index}]"
    assert rate is not None
    return encode_flac(int16_samples(audio, name), rate), TO_FLAC


@functools.lru_cache(maxsize=8)
def _open_split(name: str) -> TfdsSplit:
    return TfdsSplit(Path(name))


def _audio_file(source: Source) -> tuple[bytes, str]:
    """Returns the file to store, and whether it was copied or encoded. Decodes the recording once as a check.

    Raises:
        InputError: the recording cannot be read.
    """
    flac = lossless_flac(source)
    if flac is not None:
        return flac, TO_FLAC
    data = source.data if isinstance(source, AudioBytes) else source.read_bytes()
    read_audio(AudioBytes(str(source), data), CHECK_RATE)
    return data, COPIED

"""Reads the length table of a TensorFlow data set: id, duration, transcript and speaker of every record, in order.

A batch plan needs all durations before any audio is read. `data pack` writes the table into the set. For other sets,
the records are read once, and the table is stored in the user's cache.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ds2_jax.config.places import is_tfds
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.tfds import SplitRow, TfdsSplit
from ds2_jax.system.caches import cache_folder
from ds2_jax.system.checks import UNPRINTABLE, require
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.system.files import write_text

VERSION = 1
"""The version of the tables in the cache. Tables of another version are not used."""


@dataclasses.dataclass(frozen=True)
class TfdsRecord:
    """The audio of one record."""

    split: TfdsSplit
    index: int

    def read(self, sample_rate: int) -> np.ndarray:
        """Reads the waveform as `audio.reading.read_audio` does."""
        return self.split.read(self.index, sample_rate)

    def samples(self) -> tuple[np.ndarray, int]:
        """Reads the samples as `audio.reading.read_samples` does."""
        return self.split.samples(self.index)


def read_tfds(path: Path) -> list[Utterance]:
    """Reads the utterances of tfds:NAME#SPLIT. Utterance i is record i, and its audio is called tfds:NAME#SPLIT[i].

    Raises:
        InputError: see `TfdsSplit`; or the set is not stored for random access, or its table is damaged.
    """
    split = TfdsSplit(path)
    split.require_random_access()
    return [
        Utterance(Path(f"{path}[{i}]"), row.duration, row.transcript, row.id, row.speaker, TfdsRecord(split, i))
        for i, row in enumerate(length_table(split))
    ]


def open_records(manifest: Path, utterances: Iterable[Utterance]) -> list[Utterance]:
    """Opens the records that a manifest lists as tfds:NAME#SPLIT[NUMBER]. Other utterances stay as they are.

    Raises:
        InputError: a set cannot be read in any order, or has no such record.
    """
    splits: dict[str, TfdsSplit] = {}
    opened = []
    for utterance in utterances:
        if is_tfds(utterance.audio):
            where = f"{manifest}: the audio of {utterance.id}"
            found = re.fullmatch(r"(.*)\[(\d{1,18})\]", str(utterance.audio))
            if not found:
                rule = "name a record as tfds:NAME#SPLIT[NUMBER]"
                raise InputError(f"{where} must {rule}, got {utterance.audio}. Correct it.")
            name, index = found[1], int(found[2])
            if name not in splits:
                splits[name] = TfdsSplit(Path(name))
                splits[name].require_random_access()
            size = len(splits[name])
            require(index < size, where, f"be a record of {name}, 0 to {size - 1}", index, "Correct it.")
            utterance = dataclasses.replace(utterance, record=TfdsRecord(splits[name], index))
        opened.append(utterance)
    return opened


def length_table(split: TfdsSplit) -> list[SplitRow]:
    """Reads the table from the set or from the cache. If neither has one, makes and caches the table.

    Raises:
        InputError: the set's own table or a record is damaged.
    """
    packed = split.folder / table_name(split.split)
    if packed.exists():
        rows = parse_table(packed.read_bytes().decode(errors="replace"))
        if rows is None or len(rows) != len(split):
            raise InputError(
                f"{packed} must list each of the {len(split)} records, got a damaged table. Pack the set again."
            )
        return rows
    cached = _cache_path(split)
    if cached is not None and cached.exists():
        rows = parse_table(cached.read_text(encoding="utf-8", errors="replace"))
        if rows is not None and len(rows) == len(split):
            return rows
    rows = count(split)
    if cached is not None:
        with contextlib.suppress(InputError):  # without a cache, the next call makes the table again
            write_text(cached, format_table(rows))
    return rows


def count(split: TfdsSplit) -> list[SplitRow]:
    """Makes the table from all records and shows a progress bar.

    Raises:
        InputError: a record is damaged.
    """
    indices = tqdm(range(len(split)), desc=f"reading durations of {split.name}", unit=" utterances", delay=1)
    return unique_ids(split.row(split.record(i), i) for i in indices)


def unique_ids(rows: Iterable[SplitRow]) -> list[SplitRow]:
    """Makes ids unique: an id that occurred before gets the record's number appended."""
    unique: dict[str, SplitRow] = {}
    for index, row in enumerate(rows):
        name = f"{row.id}[{index}]" if row.id in unique else row.id
        unique[name] = row._replace(id=name)
    return list(unique.values())


def table_name(split: str) -> str:
    """Names the table's file in a set that `data pack` made."""
    return f"lengths-{split}.jsonl"


def format_table(rows: Iterable[SplitRow]) -> str:
    """Formats the table as JSON Lines, one row for each record."""
    return "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)


def parse_table(text: str) -> list[SplitRow] | None:
    """Reads what `format_table` wrote; None if the text is damaged."""
    try:
        rows = [SplitRow(**json.loads(line)) for line in text.split("\n") if line]
    except (TypeError, *NO_JSON):
        return None
    return rows if all(map(_is_whole, rows)) else None


def _is_whole(row: SplitRow) -> bool:
    types = (str, float, str, str)
    typed = all(type(value) is kind for value, kind in zip(row, types, strict=True))
    return typed and 0 <= row.duration < math.inf and not UNPRINTABLE.search(row.id + row.transcript + row.speaker)


def _cache_path(split: TfdsSplit) -> Path | None:
    """The table's path in the cache. It depends on the state of the set's files, so that new files get a new table."""
    states = file_states(split.folder)
    key = hashlib.sha256(json.dumps([VERSION, os.fspath(split.folder), split.split, states]).encode()).hexdigest()
    try:
        return cache_folder("lengths") / f"{key}.jsonl"
    except (OSError, RuntimeError, InputError):  # RuntimeError: the user has no home
        return None


def file_states(folder: Any) -> list[tuple[str, int, float]]:
    """Lists name, size and modification time of the files of a data set, on a disk or in a bucket."""
    files = sorted(folder.iterdir())
    if "://" in os.fspath(folder):
        return [(path.name, path.stat().length, path.stat().mtime) for path in files]
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, files)]

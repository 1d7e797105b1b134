"""Runs the command `data pack`: packs recordings into a few large files, which a tfds: source reads in any order."""

import collections
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from ds2_jax.config.places import is_tfds
from ds2_jax.curation.pack_shard import NAME, NOTES, Note, Task, folder_path, pack_features, read_note, write_shard
from ds2_jax.data.length_table import TfdsRecord, file_states, format_table, table_name, unique_ids
from ds2_jax.data.manifest import NUM_EXAMPLES, Problem, Utterance, count_reasons
from ds2_jax.data.splits import read_utterances
from ds2_jax.data.tfds import TfdsSplit, is_data_set, library
from ds2_jax.system import beam
from ds2_jax.system.checks import require
from ds2_jax.system.errors import NO_JSON, InputError, shorten

logger = logging.getLogger(__package__)

VERSION = 1
"""The version of the shards' contents. Shards of another version are written again."""
SOURCE = "source.json"
LEFT_OUT = "left_out.jsonl"
DESCRIPTION = "Recordings and their transcripts, packed by ds2_jax. audio is a whole audio file, most often FLAC."


def pack(
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[SPLIT=]SOURCE [...]")],
    out: str,
    shard_mb: int = 128,
    num_workers: int = 0,
    on_bad_utterance: Literal["error", "skip"] = "error",
    beam_runner: str | None = None,
    beam_options: str = "",
) -> int:
    """Packs recordings and transcripts into a TensorFlow data set of ArrayRecord files, for fast reading.

    Train on it with --data.train tfds:OUT#SPLIT: the batches are equal to those of the manifest, bit for bit. The pack
    holds the durations, so training need not read every record first. 16-bit WAV and Sphere files become FLAC, without
    loss; all other files are copied. Segments of files (offset) become files of their own. Every recording is decoded
    once to check it. Word times are not packed.

    After an interruption, the same command continues. It writes the same bytes with any number of workers.

    Args:
        sources: manifests and data sets (tfds:NAME#SPLIT, stored as ArrayRecord or TFRecord). Each becomes a split
            of the pack, named after the file or the source's split. To choose another name, write it before the source:
            train=a.jsonl dev=b.jsonl.
        out: folder of the pack, or gs://BUCKET/FOLDER (untested). ArrayRecord reads no other buckets: mount those.
        shard_mb: approximate size of a file in megabytes.
        num_workers: files written at once; 0 means one per core.
        on_bad_utterance: error stops if recordings cannot be read. skip leaves them out and lists them in
            OUT/left_out.jsonl.
        beam_runner: write the files with Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner. Its
            workers must see the recordings and OUT under the same names.
        beam_options: options of the Beam runner, as one string. You can write them after -- instead.

    Returns:
        The exit code 0.

    Raises:
        InputError: a source or OUT is wrong, or recordings cannot be read.
    """
    require(1 <= shard_mb <= 2**20, "--shard-mb", "be 1 to 1048576", shard_mb)
    require(0 <= num_workers <= 1024, "--num-workers", "be 0 (one per core) to 1024", num_workers)
    require(beam_runner is not None or not beam_options, "--beam-options", "be used with --beam-runner", beam_options)
    named = name_splits(sources)
    folder = folder_path(out)
    tasks = [task for split, path in named.items() for task in plan(split, path, str(folder), shard_mb * 10**6)]
    source = {"pack": VERSION, "digest": _digest([(task.split, task.digest) for task in tasks])}
    if is_data_set(folder):
        check_source(folder, source)
        logger.info(f"{out}: already complete")
    else:
        clear(folder, tasks)
        if beam_runner is None:
            write_shards(tasks, num_workers)
        else:
            beam.run(write_shard, tasks, beam_runner, shlex.split(beam_options))
        finish(folder, tasks, source, on_bad_utterance)
    print("\n".join(f"tfds:{out}#{split}" for split in named))
    return 0


def name_splits(sources: Sequence[str]) -> dict[str, Path]:
    """Names the split that each source becomes.

    Raises:
        InputError: there is no source, or a name is invalid or occurs twice.
    """
    if not sources:
        raise InputError("SOURCE must be a manifest or tfds:NAME#SPLIT, got none. See data pack --help.")
    named: dict[str, Path] = {}
    for source in sources:
        found = re.fullmatch(r"(\w+)=(.+)", source)
        path = Path(found[2] if found else source)
        split = found[1] if found else str(path).rpartition("#")[2] if is_tfds(path) else path.stem
        rule, advice = (
            "begin with a letter (A-Z, a-z) and have only letters, digits and _",
            f"Write another name before the source: SPLIT={shlex.quote(str(path))}.",
        )
        require(bool(re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII)), "The name of a split", rule, split, advice)
        require(split != "all", "The name of a split", 'differ from "all", which TFDS reserves', split, advice)
        require(split not in named, "The name of a split", "differ from the other splits' names", split, advice)
        named[split] = path
    return named


def plan(split: str, path: Path, out: str, shard_bytes: int) -> list[Task]:
    """Plans the shards of a split, of about `shard_bytes` each; their numbers of utterances differ by at most one.

    Raises:
        InputError: the source cannot be read.
    """
    if is_tfds(path):
        data_set = TfdsSplit(path)
        total, num_bytes = len(data_set), data_set.num_bytes
        states: Any = file_states(data_set.folder)
    else:
        utterances = read_utterances(path)
        stats = [_stat(utterance) for utterance in utterances]
        total, num_bytes = len(utterances), sum(size for size, _ in stats)
    num_shards = min(total, max(1, math.ceil(num_bytes / shard_bytes)))
    tasks = []
    for number in range(num_shards):
        start, stop = (total * each // num_shards for each in (number, number + 1))
        make = functools.partial(Task, out, split, number, num_shards)
        if is_tfds(path):
            digest = _digest([VERSION, str(path), states, start, stop])
            tasks.append(make(digest, tfds=str(path), start=start, stop=stop))
        else:
            rows = utterances[start:stop]
            content = [
                (u.id, str(u.audio), u.duration, u.transcript, u.speaker, *([u.offset] if u.offset is not None else []))
                for u in rows
            ]
            tasks.append(make(_digest([VERSION, content, stats[start:stop]]), tuple(rows)))
    return tasks


def _stat(utterance: Utterance) -> tuple[int, int]:
    """Gives size and modification time of an audio file; zeros if it is missing, which `write_shard` reports.

    For a record of a data set, they are its share of the set, and the modification time of the set's newest file.
    """
    if isinstance(utterance.record, TfdsRecord):
        return _stat_record(utterance.record.split)
    try:
        status = utterance.audio.stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _stat_record(split: TfdsSplit) -> tuple[int, int]:
    return split.num_bytes // len(split), int(max(modified for _, _, modified in file_states(split.folder)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def check_source(folder: Any, source: Mapping[str, Any]) -> None:
    """Raises InputError unless the data set in `folder` is a pack of these sources."""
    path = folder / SOURCE
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except NO_JSON:
        found = None
    if found != source:
        raise InputError(
            f"--out must be a new folder, got {folder}, which holds a data set made from other sources or with "
            "another --shard-mb. Delete it, or give another --out."
        )


def clear(folder: Any, tasks: Sequence[Task]) -> None:
    """Deletes shards that an unfinished run with other sources left.

    Raises:
        InputError: `folder` holds something other than an unfinished pack.
    """
    if not folder.exists():
        return
    content = list(folder.iterdir()) if folder.is_dir() else [folder]
    if content and not (folder / NOTES).is_dir():
        raise InputError(
            f"--out must be a new folder, got {folder}, which holds {content[0].name}. Give another --out."
        )
    kept = {task.shard.name for task in tasks}
    for path in content:
        if path.name.startswith(f"{NAME}-") and path.name not in kept:
            path.unlink()
    if finished := sum(read_note(task) is not None for task in tasks):
        logger.info(f"{folder}: continuing, {finished} of {len(tasks)} files exist")


def write_shards(tasks: Sequence[Task], num_workers: int) -> None:
    """Writes shards in threads. Decoding, encoding and writing take most of the time and release the GIL."""
    total = sum(map(len, tasks))
    with (
        ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool,
        tqdm(desc="packing", total=total, unit=" utterances", delay=1) as bar,
    ):
        futures = {pool.submit(write_shard, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                future.result()
                bar.update(len(futures[future]))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C or an error: running tasks finish their shards
            raise


def finish(folder: Any, tasks: Sequence[Task], source: Mapping[str, Any], on_bad_utterance: str) -> None:
    """Writes the length tables, then TFDS's metadata. The metadata makes the folder count as a data set.

    Raises:
        InputError: recordings could not be read, and `on_bad_utterance` is "error" or a split has no recording left.
    """
    notes: dict[str, list[Note]] = collections.defaultdict(list)
    for task in tasks:
        note = read_note(task)
        if note is None:
            raise InputError(f"{task.shard} must exist, got none: its writer failed. Run the same command again.")
        notes[task.split].append(note)
    problems = [problem for split in notes.values() for note in split for problem in note.problems]
    _check_problems(problems, sum(map(len, tasks)), on_bad_utterance)
    for split, parts in notes.items():
        rows = unique_ids(row for note in parts for row in note.rows)
        if not rows:
            raise InputError(
                f"Split {split} must hold a recording that can be read, got none. Replace the recordings of its source."
            )
        (folder / table_name(split)).write_text(format_table(rows), encoding="utf-8")
    if problems:
        lines = [json.dumps(dataclasses.asdict(problem), ensure_ascii=False) + "\n" for problem in problems]
        (folder / LEFT_OUT).write_text("".join(lines), encoding="utf-8")
    (folder / SOURCE).write_text(json.dumps(source) + "\n", encoding="utf-8")
    tfds = library()
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=pack_features(),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(note.rows) for note in parts],
                num_bytes=sum(note.num_bytes for note in parts),
            )
            for split, parts in notes.items()
        ],
        version="1.0.0",
        check_data=False,  # the check does not support ArrayRecord
        description=DESCRIPTION,
    )
    (folder / NOTES).rmtree()
    _report(folder, notes, problems)


def _check_problems(problems: Sequence[Problem], total: int, on_bad_utterance: str) -> None:
    if not problems or on_bad_utterance == "skip":
        return
    examples = "; ".join(f"{shorten(p.id)} ({shorten(p.detail, 300)})" for p in problems[:NUM_EXAMPLES])
    raise InputError(
        f"SOURCE must hold only recordings that can be read, got {len(problems)} of {total} that cannot: "
        f"{count_reasons(problems)}. Replace them, or leave them out with --on-bad-utterance skip; files "
        f"already written are kept. The first unreadable recordings: {examples}."
    )


def _report(folder: Any, notes: Mapping[str, Sequence[Note]], problems: Sequence[Problem]) -> None:
    """Logs the contents of the pack."""
    lines = [f"{folder}:"]
    width = max(map(len, notes))
    for split, parts in notes.items():
        hours = sum(row.duration for note in parts for row in note.rows) / 3600
        kinds = sum((collections.Counter(note.kinds) for note in parts), start=collections.Counter[str]())
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        files = "1 file" if len(parts) == 1 else f"{len(parts):,} files"
        megabytes = sum(note.num_bytes for note in parts) / 1e6
        lines.append(f"  {split:{width}}  {hours:.2f} h  {megabytes:,.1f} MB in {files}  {counts}")
    if problems:
        lines.append(f"  left out {len(problems):,}: {count_reasons(problems)}; {folder / LEFT_OUT} names them")
    logger.info("\n".join(lines))

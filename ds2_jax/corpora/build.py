"""Shared steps of building corpora: a folder that appears when it is complete, parallel work, and a report."""

import collections
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ds2_jax.audio.reading import audio_duration
from ds2_jax.data.manifest import (
    MAX_DURATION,
    Problem,
    Reason,
    Utterance,
    count_reasons,
    read_text,
    write_manifest,
    write_problems,
)
from ds2_jax.system import locks
from ds2_jax.system.checks import UNPRINTABLE, require
from ds2_jax.system.errors import NO_JSON, InputError, shorten
from ds2_jax.system.files import write_text, writing

logger = logging.getLogger(__package__)

Item = TypeVar("Item")
Result = TypeVar("Result")
ANOTHER_FOLDER = "Delete the folder, or choose another root."
LEFT_OUT = "left_out.jsonl"
SOURCE = "source.json"
ITEMS_AHEAD = 1000
"""The largest number of items that wait for a thread, or whose results wait for the result of an earlier item."""


@contextlib.contextmanager
def building(folder: Path, source: Mapping[str, object] | None = None) -> Iterator[Path]:
    """Yields the path FOLDER.partial, in which to build `folder`.

    At the end, FOLDER.partial is deleted, unless it was renamed or can be continued. It can be continued if its
    source.json contains all of `source`. Then the next call keeps its files. If `source` is None, every call starts
    afresh.

    One process builds at a time. Another process waits, and should then check whether `folder` exists.

    Args:
        folder: folder of the corpus.
        source: description of what the corpus is made from.

    Raises:
        InputError: the parent folder cannot be written.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    with locked(folder):
        if is_begun(partial, source):
            logger.info(f"{partial}: continuing the work of an interrupted run")
        else:
            shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        try:
            yield partial
        finally:
            _tidy(partial, source)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process prepares a corpus in the parent of `folder`, then locks the parent.

    Parents that this call made are removed again if they stay empty.

    Raises:
        InputError: the parent folder cannot be written.
    """
    root = folder.parent
    missing = [each for each in (root, *root.parents) if not each.exists()]
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)

    def say() -> None:
        logger.info(f"{folder}: waiting for another process that prepares a corpus there")

    def warn(reason: str) -> None:
        logger.warning(f"{root} cannot be locked ({reason}): make sure that no other process prepares a corpus there")

    with locks.locked(root, on_taken=say, on_no_locks=warn):
        if root.is_dir():
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # it holds something
                    for each in missing:
                        each.rmdir()
            return
    with locked(folder):  # the process that held the lock made the parent, and removed it
        yield


def begin(partial: Path, source: Mapping[str, object]) -> None:
    """Writes source.json, which marks `partial` as unfinished work on `source` that a later run can continue."""
    write_text(partial / SOURCE, json.dumps(source) + "\n")


def is_begun(partial: Path, source: Mapping[str, object] | None) -> bool:
    """Whether the source.json in `partial` contains everything in `source`."""
    made_from = _load_source(partial / SOURCE)
    return source is not None and made_from is not None and source.items() <= made_from.items()


def _tidy(partial: Path, source: Mapping[str, object] | None) -> None:
    if not is_begun(partial, source):
        shutil.rmtree(partial, ignore_errors=True)


def read_source(folder: Path, corpus: str, manifests: Iterable[str] = ("train", "dev", "test")) -> dict[str, object]:
    """Reads source.json, which describes what the finished corpus in `folder` was made from.

    Raises:
        InputError: source.json is broken, or it or one of `manifests` is missing.
    """
    for name in (SOURCE, *(f"{split}.jsonl" for split in manifests)):
        if not (folder / name).is_file():
            raise InputError(f"{folder} must be made by preparing {corpus}, got no {name} in it. {ANOTHER_FOLDER}")
    path = folder / SOURCE
    source = _load_source(path)
    if source is None:
        raise InputError(f"{path} must be the file that preparing {corpus} wrote, got other contents. {ANOTHER_FOLDER}")
    return source


def check_source(folder: Path, corpus: str, wanted: Mapping[str, object]) -> None:
    """Raises InputError unless `folder` contains the finished corpus and its source.json contains all of `wanted`."""
    made_from = read_source(folder, corpus)
    for name, value in wanted.items():
        if made_from.get(name) != value:
            raise InputError(f"{folder} must be made with {name} {value}, got {made_from.get(name)}. {ANOTHER_FOLDER}")


def _load_source(path: Path) -> dict[str, object] | None:
    """Reads a source.json; None if it is missing or broken."""
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *NO_JSON):
        return None
    return source if isinstance(source, dict) else None


class Journal:
    """Saves the results of work in a file, line by line, so that a later run does not repeat the work.

    Args:
        path: a JSON Lines file, which an earlier run may have started.

    Raises:
        InputError: the file cannot be read or written, or a complete line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._results: dict[str, int | float | str] = {}
        lines = read_text(path).splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave the last line incomplete
        for number, line in enumerate(whole, start=1):
            self._results |= _read_result(line, f"{path}, line {number}")
        if len(whole) < len(lines):
            write_text(path, "".join(whole))
        with writing(path):
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def once(self, name: str, work: Callable[[], float | str]) -> float | str:
        """Returns the stored result for `name`; runs `work` if there is none. Several threads may call this method."""
        if name not in self._results:
            result = work()
            with self._lock, writing(Path(self._file.name)):
                self._results[name] = result
                self._file.write(json.dumps({name: result}) + "\n")
                self._file.flush()
        return self._results[name]


def _read_result(line: str, where: str) -> dict[str, int | float | str]:
    advice = "Delete the line: the next run repeats its work."
    try:
        row: dict[str, int | float | str] = json.loads(line)
    except NO_JSON as error:
        raise InputError(f"{where} must be a JSON object, got {shorten(repr(line))}. {advice}") from error
    sound = isinstance(row, dict) and all(type(value) in (int, float, str) for value in row.values())
    sound = sound and all(isinstance(value, str) or 0 <= value < 2**63 for value in row.values())
    require(
        sound, where, "map each name to a number (0 or more) or to a text that says why there is no number", row, advice
    )
    return row


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The utterances of a split, and the reasons why others were left out."""

    utterances: Sequence[Utterance]
    left_out: Sequence[Problem] = ()


def gather(
    items: Sequence[Item], make: Callable[[Item], Utterance | Problem], *, title: str, num_workers: int = 0
) -> Gathered:
    """Turns every item into an utterance or a problem, several at a time.

    Args:
        items: the items, in the order of the manifest.
        make: turns an item into an utterance or a problem. It runs in threads, because reading, resampling and writing
            audio release the GIL.
        title: label of the progress bar.
        num_workers: number of threads; 0 means one per core.
    """
    return sort_out(in_parallel(items, make, title=title, unit="utterances", num_workers=num_workers))


def in_parallel(
    items: Sequence[Item], make: Callable[[Item], Result], *, title: str, unit: str, num_workers: int = 0
) -> list[Result]:
    """Applies `make` to every item, several at a time, and returns the results in order. See `gather`."""
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        try:
            return list(tqdm(_in_order(pool, make, items), desc=title, total=len(items), unit=f" {unit}", delay=1))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C or an error: do not start the other items
            raise


def _in_order(pool: ThreadPoolExecutor, make: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields the results in order, like `pool.map`, but submits only about ITEMS_AHEAD items ahead.

    `pool.map` would submit all items at once, and a million futures take 2 GB.
    """
    pending: collections.deque[Future[Result]] = collections.deque()
    for item in items:
        pending.append(pool.submit(make, item))
        if len(pending) > ITEMS_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def sort_out(made: Iterable[Utterance | Problem]) -> Gathered:
    """Separates utterances and problems."""
    made = list(made)
    return Gathered(
        [each for each in made if isinstance(each, Utterance)], [each for each in made if isinstance(each, Problem)]
    )


def pair(recordings: Iterable[tuple[str, Utterance]], transcripts: Mapping[str, str]) -> list[Utterance | Problem]:
    """Pairs every recording with its transcript; a recording or transcript without its counterpart becomes a problem.

    Args:
        recordings: for each recording, the key of its transcript, and the utterance without transcript.
        transcripts: the transcripts by key. For a transcript without a recording, the problem's id is the key.
    """
    paired: list[Utterance | Problem] = []
    without_audio = dict(transcripts)
    for key, utterance in recordings:
        if key in transcripts:
            without_audio.pop(key, None)
            paired.append(dataclasses.replace(utterance, transcript=transcripts[key]))
        else:
            detail = f"{utterance.audio.name} has no transcript"
            paired.append(Problem(utterance.id, str(utterance.audio), "missing transcript", detail))
    for key, transcript in without_audio.items():
        paired.append(Problem(key, "", "missing audio", f"no recording of {shorten(repr(transcript))}"))
    return paired


def measure(found: Utterance | Problem) -> Utterance | Problem:
    """Adds the duration to an utterance, or explains why a manifest cannot list it. Pass this function to `gather`.

    The audio is not decoded.
    """
    if isinstance(found, Problem):
        return found
    reason: Reason
    if UNPRINTABLE.search(found.transcript):
        reason, detail = "unreadable transcript", repr(found.transcript)
    elif not found.transcript.strip():
        reason, detail = "empty transcript", repr(found.transcript)
    elif UNPRINTABLE.search(f"{found.audio}{found.id}{found.speaker}"):
        reason, detail = "unreadable audio", "its path must be in UTF-8; rename it"
    else:
        try:
            duration = audio_duration(found.audio)
        except InputError as error:
            reason, detail = "unreadable audio", str(error)
        else:
            if duration <= MAX_DURATION:
                return dataclasses.replace(found, duration=duration)
            reason, detail = (
                "duration outside the limits",
                f"{duration} s, but a manifest allows at most {MAX_DURATION} s",
            )
    return Problem(found.id, str(found.audio), reason, detail)


def finish(
    partial: Path,
    folder: Path,
    splits: Mapping[str, Gathered],
    source: Mapping[str, object],
    left_out: Sequence[Problem] = (),
) -> None:
    """Writes the manifests, source.json and, if there are problems, left_out.jsonl; renames `partial` to `folder`.

    Args:
        partial: the folder from `building`, or a folder in it.
        folder: folder of the finished corpus.
        splits: the splits by the name of their manifest, without suffix.
        source: description of what the corpus was made from.
        left_out: problems that belong to no split.
    """
    for name, split in splits.items():
        write_manifest(partial / f"{name}.jsonl", split.utterances)
    if problems := [*left_out, *(problem for split in splits.values() for problem in split.left_out)]:
        # The list names the paths that the files have after the folder is renamed.
        write_problems(partial / LEFT_OUT, (_renamed(problem, partial, folder) for problem in problems))
    begin(partial, source)
    with writing(folder):
        partial.rename(folder)


def _renamed(problem: Problem, partial: Path, folder: Path) -> Problem:
    """Replaces `partial` by `folder`, and escapes names that are not UTF-8."""
    texts = {field: getattr(problem, field) for field in ("id", "audio", "detail")}
    for field, text in texts.items():
        texts[field] = text.replace(str(partial), str(folder)).encode(errors="backslashreplace").decode()
    return dataclasses.replace(problem, **texts)


def report(folder: Path, corpus: str, splits: Mapping[str, Gathered], left_out: Sequence[Problem] = ()) -> None:
    """Prints to standard error the hours, utterances, speakers and words of each split, and what was left out and why.

    Args:
        folder: folder of the finished corpus.
        corpus: the name of the corpus, and what it was made from.
        splits: the splits by name.
        left_out: problems that belong to no split.
    """
    lines = [f"{folder}: {corpus}"]
    width = max(map(len, splits))
    for name, split in splits.items():
        hours = sum(utterance.duration for utterance in split.utterances) / 3600
        words = sum(len(utterance.transcript.split()) for utterance in split.utterances)
        speakers = len({utterance.speaker for utterance in split.utterances if utterance.speaker})
        counts = f"{len(split.utterances):,} utterances  {speakers:,} speakers  {words:,} words"
        lines.append(f"  {name:{width}}  {hours:.2f} h  {counts}")
        lines += _left_out(split.left_out, f"  {'':{width}}  left out", folder)
    lines += _left_out(left_out, "  left out, in no split:", folder)
    sys.stderr.write("\n".join(lines) + "\n")


def _left_out(problems: Sequence[Problem], title: str, folder: Path) -> list[str]:
    if not problems:
        return []
    return [f"{title} {len(problems):,}: {count_reasons(problems)}; {folder / LEFT_OUT} names them"]

"""What every corpus needs to be built: a folder that appears when it is complete, work in parallel, a report."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ds2_jax.data.manifest import Problem, Utterance, count_reasons, write_manifest, write_problems
from ds2_jax.errors import InputError
from ds2_jax.files import write_text, writing

try:
    import fcntl
except ModuleNotFoundError:  # Windows: two processes must not prepare one corpus there
    fcntl = None  # type: ignore[assignment]

Item = TypeVar("Item")
ANOTHER_FOLDER = "Delete the folder, or choose another data.root."
LEFT_OUT = "left_out.jsonl"


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A fresh folder FOLDER.partial in which to build `folder`, deleted in the end unless it was renamed.

    One process at a time: another waits, and should then look whether `folder` is there.

    Raises:
        InputError: the folder above cannot be written.
    """
    root, partial = folder.parent, folder.with_name(f"{folder.name}.partial")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(root, os.O_RDONLY)
            stack.callback(os.close, handle)  # which unlocks, as the end of the process does
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{folder}: waiting for another process that prepares a corpus there", file=sys.stderr)
                fcntl.flock(handle, fcntl.LOCK_EX)
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        yield partial


def read_source(folder: Path, corpus: str, manifests: Iterable[str] = ("train", "dev", "test")) -> dict[str, object]:
    """What the finished corpus in `folder` was made from: its source.json.

    Raises:
        InputError: it is broken, or it or one of `manifests` is missing.
    """
    for name in ("source.json", *(f"{split}.jsonl" for split in manifests)):
        if not (folder / name).is_file():
            raise InputError(f"{folder} must be made by preparing {corpus}, got no {name} in it. {ANOTHER_FOLDER}")
    path = folder / "source.json"
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # neither JSON nor UTF-8
        source = None
    if not isinstance(source, dict):
        raise InputError(f"{path} must be as preparing {corpus} wrote it, got something else. {ANOTHER_FOLDER}")
    return source


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Utterances of a split, and what was left out of it."""

    utterances: Sequence[Utterance]
    left_out: Sequence[Problem] = ()


def gather(
    items: Sequence[Item], make: Callable[[Item], Utterance | Problem], *, title: str, num_workers: int = 0
) -> Gathered:
    """Makes an utterance, or the reason why there is none, of every item, several at a time.

    Args:
        items: in the order of the manifest to come.
        make: run in threads; reading, resampling and writing audio release Python's lock.
        title: of the progress bar on stderr.
        num_workers: threads; 0 means one per core.
    """
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        try:
            made = list(tqdm(pool.map(make, items), desc=title, total=len(items), unit=" utterances", delay=1))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C or an error: no hours of work that nobody will read
            raise
    return Gathered(
        [each for each in made if isinstance(each, Utterance)], [each for each in made if isinstance(each, Problem)]
    )


def finish(partial: Path, folder: Path, splits: Mapping[str, Gathered], source: Mapping[str, object]) -> None:
    """Writes the manifests, left_out.jsonl and source.json into `partial`, then renames it to `folder`."""
    for name, split in splits.items():
        write_manifest(partial / f"{name}.jsonl", split.utterances)
    if left_out := [problem for split in splits.values() for problem in split.left_out]:
        # Named as they will be found: the folder has its name only in a moment.
        write_problems(partial / LEFT_OUT, left_out)
    write_text(partial / "source.json", json.dumps(source) + "\n")
    with writing(folder):
        partial.rename(folder)


def report(folder: Path, corpus: str, splits: Mapping[str, Gathered]) -> None:
    """Says on stderr how many hours, utterances, speakers and words each split has, and what was left out and why."""
    lines = [f"{folder}: {corpus}"]
    width = max(map(len, splits))
    for name, split in splits.items():
        hours = sum(utterance.duration for utterance in split.utterances) / 3600
        words = sum(len(utterance.transcript.split()) for utterance in split.utterances)
        speakers = len({utterance.speaker for utterance in split.utterances if utterance.speaker})
        counts = f"{len(split.utterances):,} utterances  {speakers:,} speakers  {words:,} words"
        lines.append(f"  {name:{width}}  {hours:.2f} h  {counts}")
        if split.left_out:
            reasons = count_reasons(split.left_out)
            lines.append(f"  {'':{width}}  left out {len(split.left_out):,}: {reasons}; {folder / LEFT_OUT} names them")
    sys.stderr.write("\n".join(lines) + "\n")

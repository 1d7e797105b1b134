"""Transcribes large archives in parts that any number of processes or machines can do, with Apache Beam.

Each part is a file of JSON Lines. It depends only on its recordings and the settings, and it is written whole or not at
all. So an interrupted command does what is missing when it is run again.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ds2_jax.audio.timeline import Timeline
from ds2_jax.config.places import absolute
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.formats import to_json
from ds2_jax.recognition.inputs import STANDARD_INPUT, AudioFile, find_audio, read_input_blocks
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model
from ds2_jax.runs.weights import weights_of
from ds2_jax.system import beam
from ds2_jax.system.checks import UNPRINTABLE
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.system.files import file_digest, write_text, writing

logger = logging.getLogger(__package__)

PLAN = "plan.json"
"""The file that says what the parts belong to."""
PART_BYTES = 64 * 10**6
PART_FILES = 128
"""A part ends after so many bytes of recordings, or so many recordings. Pieces of this many are sorted by length."""
BYTES_PER_SECOND = 32_000
"""What counts as the size of a recording that has no file of its own: that of 16-bit samples at 16 kHz."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A part of an archive.

    Attributes:
        place: the file to write.
        files: the recordings; their paths are absolute.
        run: the model.
        decoding: how to decode.
        engine: what runs the model.
    """

    place: Path
    files: tuple[AudioFile, ...]
    run: Path
    decoding: DecodingOptions
    engine: EngineName | None


def transcribe_archive(
    run: Path,
    audio: Sequence[Path],
    folder: Path,
    decoding: DecodingOptions,
    engine: EngineName | None,
    runner: str,
    options: Sequence[str],
) -> int:
    """Transcribes recordings with a Beam pipeline into files PART-of-PARTS.jsonl.

    Each line is that of `transcribe --format json`. If a recording cannot be read, its line has `error` instead.

    Args:
        run: the model.
        audio: files, folders, patterns, manifests and data sets; see `find_audio`.
        folder: folder of the results, which all workers see under the same name.
        decoding: how to decode.
        engine: what runs the model.
        runner: Beam's runner.
        options: options of the runner.

    Returns:
        The exit code: 1 if a recording could not be transcribed, else 0.

    Raises:
        InputError: see `find_audio` and `beam.run`; standard input is named; or the folder holds results of other
            recordings or settings.
    """
    started = time.perf_counter()
    files = [file._replace(path=absolute(file.path)) for file in find_audio(audio)]
    if any(file.path.name == STANDARD_INPUT.name for file in files):
        raise InputError("AUDIO must name files with --beam-runner, got standard input. Write it into a file first.")
    run, decoding = find_model(run).absolute(), dataclasses.replace(decoding, lm=decoding.lm and decoding.lm.absolute())
    parts = list(divide(files))
    _check_plan(folder, _digest(parts, run, decoding, engine))
    places = [folder.absolute() / f"{index:05d}-of-{len(parts):05d}.jsonl" for index in range(len(parts))]
    tasks = [Task(place, part, run, decoding, engine) for place, part in zip(places, parts, strict=True)]
    missing = [task for task in tasks if not task.place.exists()]
    if num_done := len(tasks) - len(missing):
        logger.info(f"{num_done} of {len(tasks)} parts are already finished")
    if missing:
        beam.run(transcribe_part, missing, runner, options)
    return _report(places, time.perf_counter() - started)


def divide(files: Iterable[AudioFile]) -> Iterator[tuple[AudioFile, ...]]:
    """Divides recordings into parts, in order."""
    part: list[AudioFile] = []
    num_bytes = 0
    for file in files:
        size = _size(file)
        if part and (len(part) == PART_FILES or num_bytes + size > PART_BYTES):
            yield tuple(part)
            part, num_bytes = [], 0
        part.append(file)
        num_bytes += size
    if part:
        yield tuple(part)


def _size(file: AudioFile) -> int:
    utterance = file.utterance
    if utterance is not None and (utterance.offset is not None or utterance.record is not None):
        return round(utterance.duration * BYTES_PER_SECOND)
    try:
        return os.stat(file.path).st_size  # noqa: PTH116 - the name may be too long
    except (OSError, ValueError):
        return 0  # its line will have the error


def transcribe_part(task: Task) -> None:
    """Transcribes the recordings of a part. A worker calls this; it keeps its model between parts.

    Raises:
        InputError: see `Recogniser`; or the file cannot be written.
    """
    recogniser = _recogniser(task.run, task.decoding, task.engine)
    sample_rate = recogniser.config.features.sample_rate

    def opened(file: AudioFile) -> NamedBlocks:
        timeline = Timeline()
        return NamedBlocks(file.path, read_input_blocks(file, sample_rate, None, timeline), timeline)

    lines = []
    for file, result in zip(task.files, recogniser.transcribe_blocks(map(opened, task.files)), strict=True):
        utterance_id = file.utterance.id if file.utterance else ""
        if isinstance(result, InputError):
            lines.append(_error_line(file, utterance_id, result))
        else:
            lines.append(to_json(result, utterance_id))
    write_text(task.place, "".join(lines))


@functools.lru_cache(maxsize=1)
def _recogniser(run: Path, decoding: DecodingOptions, engine: EngineName | None) -> Recogniser:
    return Recogniser(run, decoding, engine)


def _error_line(file: AudioFile, utterance_id: str, error: InputError) -> str:
    line = {"audio": str(file.path)} | ({"id": utterance_id} if utterance_id else {}) | {"error": str(error)}
    return json.dumps(line, ensure_ascii=bool(UNPRINTABLE.search(f"{file.path}{error}"))) + "\n"


def _digest(
    parts: Sequence[Sequence[AudioFile]], run: Path, decoding: DecodingOptions, engine: EngineName | None
) -> str:
    """Computes a SHA-256 of all that the results depend on but the sound itself."""
    segments = [
        [(str(file.path), file.name, _size(file), file.utterance and file.utterance.offset) for file in part]
        for part in parts
    ]
    model = weights_of(run, read_config(run))[1]
    lm = file_digest(decoding.lm) if decoding.lm else ""
    options = dataclasses.asdict(decoding) | {"lm": lm, "engine": engine}
    return hashlib.sha256(json.dumps([segments, model, options]).encode()).hexdigest()


def _check_plan(folder: Path, digest: str) -> None:
    """Notes in a folder what its parts belong to, or checks that it is the same work that was begun there."""
    plan = folder / PLAN
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if plan.exists():
        try:
            content: Any = json.loads(plan.read_bytes())
            same = content["digest"] == digest
        except (*NO_JSON, KeyError, TypeError):
            same = False
        if not same:
            rule = "be new, or hold parts of the same recordings, model and settings"
            raise InputError(f"--output-dir must {rule}, got others in {folder}. Name another folder.")
        return
    if other := next(folder.iterdir(), None):
        raise InputError(f"--output-dir must be an empty or new folder, got {other} in it. Name another folder.")
    write_text(plan, json.dumps({"digest": digest}) + "\n")


def _report(places: Sequence[Path], elapsed: float) -> int:
    num_files = num_failed = 0
    seconds = 0.0
    for place in places:
        with place.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                num_files, num_failed = num_files + 1, num_failed + ("error" in row)
                seconds += row.get("duration", 0.0)
    failed = f"; {num_failed:,} failed, see their lines" if num_failed else ""
    parts = "1 part" if len(places) == 1 else f"{len(places):,} parts"
    logger.info(
        f"{num_files - num_failed:,} recordings, {seconds:.1f} s of audio in {elapsed:.1f} s, in {parts}{failed}"
    )
    return 1 if num_failed else 0

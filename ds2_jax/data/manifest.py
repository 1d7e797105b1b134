"""Reads manifests, which are lists of utterances, in three formats, and writes them in ours."""

import collections
import dataclasses
import json
import logging
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from ds2_jax.audio.reading import audio_duration, read_audio, read_samples
from ds2_jax.audio.segment import read_segment, segment_limits
from ds2_jax.audio.waveform import mono_waveform
from ds2_jax.config.places import TFDS, absolute, relative
from ds2_jax.system.checks import UNPRINTABLE, require
from ds2_jax.system.errors import NO_JSON, InputError, shorten
from ds2_jax.system.files import write_text

logger = logging.getLogger(__package__)

Row = dict[str, Any]
Reason = Literal[
    "missing archive",
    "unreadable archive",
    "missing audio",
    "unreadable audio",
    "missing transcript",
    "unreadable transcript",
    "empty transcript",
    "unknown characters",
    "duration outside the limits",
    "too few output frames",
    "wrong duration",
    "unreadable noise or response",
    "outside the splits",
    "unexpected error",
    "not in the split",
    "not transcribed",
    "outside the recording",
    "unusable line",
]
NUM_EXAMPLES = 3
EXAMPLE_LENGTH = 300
"""The number of characters of a problem's detail that a message shows. The file of problems contains all of it."""
MAX_DURATION = 3600
"""Longest duration in seconds. A larger number most likely has the wrong unit, and evaluation, which sets no limit
of its own, would run out of memory."""
LARGEST = 1e9
"""Largest offset in seconds, which every recording is shorter than."""


class Record(Protocol):
    """Audio that has no file of its own."""

    def read(self, sample_rate: int) -> np.ndarray:
        """Reads the waveform as `audio.reading.read_audio` does."""

    def samples(self) -> tuple[np.ndarray, int]:
        """Reads the samples as `audio.reading.read_samples` does."""


class TimedWord(NamedTuple):
    """A word of a transcript and when it is spoken, in seconds from the start of the recording."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One recording, or a segment of it, and its transcript.

    Attributes:
        audio: the audio file; with a `record`, a name for messages and results.
        duration: seconds; 0 if the header of the file cannot be read.
        offset: seconds from the start of the file to the start of the utterance, if the manifest names a segment of the
            file; None for a whole file.
        transcript: the transcript as written in the manifest; the alphabet normalises it.
        id: a name for messages and results that is unique in the manifest.
        speaker: name of the speaker; "" if unknown.
        record: reads the audio if it has no file of its own.
        words: the words of the transcript in order, with times; empty if the times are unknown.
        place: where the manifest lists the utterance, such as "line 3"; "" if unknown.
    """

    audio: Path
    duration: float
    transcript: str
    id: str
    speaker: str = ""
    record: Record | None = None
    words: tuple[TimedWord, ...] = ()
    offset: float | None = None
    place: str = dataclasses.field(default="", compare=False)

    def num_samples(self, sample_rate: int) -> int:
        """Computes the number of samples in `duration` at `sample_rate` (Hz)."""
        return round(self.duration * sample_rate)

    def samples(self) -> tuple[np.ndarray, int]:
        """Reads the samples as `audio.reading.read_samples` does."""
        if self.record is not None:
            samples, rate = self.record.samples()
            inside = (
                slice(*segment_limits(self.offset, self.duration, rate)) if self.offset is not None else slice(None)
            )
            return samples[inside], rate
        if self.offset is not None:
            return read_segment(self.audio, self.offset, self.duration)
        return read_samples(self.audio)

    def read(self, sample_rate: int) -> np.ndarray:
        """Reads the waveform as `audio.reading.read_audio` does."""
        if self.offset is None:
            return self.record.read(sample_rate) if self.record is not None else read_audio(self.audio, sample_rate)
        samples, file_rate = self.samples()
        return mono_waveform(samples, file_rate, sample_rate, str(self.audio))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why an utterance cannot be used: a reason to count, and a detail."""

    id: str
    audio: str
    reason: Reason
    detail: str


def read_manifest(path: Path, *, transcribed: bool = True) -> list[Utterance]:
    """Reads a manifest in one of three formats, which it recognises by the content.

    * Our format is JSON Lines with `audio`, `transcript`, and optionally `duration`, `offset`, `id`, `speaker` and
      `words`, a list of [word, start, end].
    * NeMo's format is JSON Lines with `audio_filepath`, `text`, and optionally `duration`, `offset`, `id` and
      `speaker`.
    * deepspeech.pytorch's format is one JSON object with `root_path` and `samples` of `wav_path` and
      `transcript_path`. Transcripts are read from their files.

    A line with `offset` names the segment of its file that starts there and lasts `duration` seconds. Times of words
    count from the start of the segment. Missing durations are read from the headers of the audio.

    Paths are relative to the manifest's folder. In deepspeech.pytorch's format they are relative to `root_path`, which
    is relative to that folder. In the other formats, tfds:NAME#SPLIT[NUMBER] names a record of a TensorFlow data set
    instead of a file; `splits.read_utterances` opens it. An utterance without an id is named after its audio file, with
    a number if that name is taken.

    Args:
        path: the manifest.
        transcribed: whether the recordings have transcripts. Without, the transcripts of lines that lack them are "",
            and durations that the manifest lacks are NaN, except those of segments.

    Raises:
        InputError: the file does not exist, has no utterance or is not JSON; a key is missing or has the wrong type; a
            line has keys of both formats; a duration is not a number of seconds up to an hour; an offset is not a
            number of seconds; an id occurs twice; the words differ from the transcript or their times are not in order;
            or a transcript file cannot be read.
    """
    text = read_text(path)
    try:
        document = json.loads(text)
    except NO_JSON:  # JSON Lines, or an error that `_read_lines` reports
        document = None
    if isinstance(document, dict) and "samples" in document:
        utterances = _read_samples(path, document)
    else:
        utterances = _read_lines(path, text, transcribed)
    require(bool(utterances), str(path), "hold at least one utterance", "an empty manifest", "Write it again.")
    return _with_durations(path, utterances, transcribed)


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes a manifest as JSON Lines in our format.

    Paths inside the manifest's folder are relative to it, so that you can move the folder.
    """
    folder = path.absolute().parent
    rows = []
    for utterance in utterances:
        audio = relative(absolute(utterance.audio), folder)
        row: Row = {"audio": audio.as_posix()} | ({} if utterance.offset is None else {"offset": utterance.offset})
        row |= {name: getattr(utterance, name) for name in ("duration", "transcript", "id", "speaker")}
        if not utterance.duration and utterance.record is None:  # to be read when the file can be read
            del row["duration"]
        rows.append(row | ({"words": utterance.words} if utterance.words else {}))
    _write_lines(path, rows)


def count_reasons(problems: Iterable[Problem]) -> str:
    """Counts problems by reason, the most frequent first, such as "2 missing audio, 1 unknown characters"."""
    counts = collections.Counter(problem.reason for problem in problems)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Writes problems as JSON Lines with id, audio, reason and detail."""
    _write_lines(path, [dataclasses.asdict(problem) for problem in problems])


def read_text(path: Path) -> str:
    """Reads a UTF-8 file and removes a byte order mark.

    Raises:
        InputError: the file cannot be read, or has another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text, got {error.reason} at byte {error.start}. Convert it.") from error
    except OSError as error:
        name = shorten(str(path), EXAMPLE_LENGTH)
        raise InputError(f"{name} must be a readable file, got: {error.strerror}. Correct the path.") from error


def _read_lines(path: Path, text: str, transcribed: bool) -> list[Utterance]:
    """Reads the utterances of JSON Lines in our or in NeMo's format."""
    utterances: list[Utterance] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split at U+2028 in a transcript
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except NO_JSON as error:
            goes_on = isinstance(error, json.JSONDecodeError) and error.pos >= len(line.rstrip()) > 0
            advice = "Write each object on a line of its own: jq -c . OLD > NEW" if goes_on else str(error)
            raise InputError(f"{where} must be a JSON object, got {shorten(repr(line))}. {advice}.") from error
        utterance = dataclasses.replace(_utterance(row, where, path.parent, transcribed), place=f"line {number}")
        if utterance.id:
            first = lines.setdefault(utterance.id, number)
            require(first == number, f"{where}: id", f"differ from the id of line {first}", utterance.id, "Rename one.")
        utterances.append(utterance)
    return _name(utterances)


def _utterance(row: Row, where: str, folder: Path, transcribed: bool) -> Utterance:
    """Reads the utterance of one line; its id is "" if the line has none."""
    require(isinstance(row, dict), where, "be a JSON object", row)
    nemo = "audio_filepath" in row
    audio = _string(row, "audio_filepath" if nemo else "audio", where)
    text = "text" if nemo else "transcript"
    transcript = _string(row, text, where) if transcribed or row.get(text) is not None else ""
    for one, other in (("audio", "audio_filepath"), ("transcript", "text")):
        require(not {one, other} <= row.keys(), where, f"have one of {one} and {other}", "both", "Remove one.")
    duration, offset = (_seconds(row, key, where) for key in ("duration", "offset"))
    record = audio.startswith(TFDS)
    require(duration is not None or not record, f"{where}: duration", "be present", ", ".join(row), "Add it.")
    name, speaker = ("" if row.get(key) is None else _string(row, key, where) for key in ("id", "speaker"))
    place = absolute(Path(audio), folder) if record else folder / audio
    words = _words(row.get("words") or [], transcript, math.inf if duration is None else duration, f"{where}: words")
    seconds = math.nan if duration is None else duration  # `_with_durations` reads it
    return Utterance(place, seconds, transcript, name, speaker, words=words, offset=offset)


def _seconds(row: Row, key: str, where: str) -> float | None:
    """Reads a number of seconds; None if the line has none."""
    value = row.get(key)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    finite = number and 0 <= value <= (MAX_DURATION if key == "duration" else LARGEST)  # not NaN either
    rule = f"be 0 to {MAX_DURATION} seconds" if key == "duration" else "be a number of seconds, 0 or more"
    require(finite, f"{where}: {key}", rule, value, "Correct it.")
    return float(value)


def _words(rows: Any, transcript: str, duration: float, field: str) -> tuple[TimedWord, ...]:
    """Reads the words of a line and their times."""
    advice = "Correct them, or leave them out."
    listed = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 3 for row in rows)
    require(listed, field, "be a list of [word, start, end]", rows, advice)
    words = tuple(TimedWord(*row) for row in rows)
    said = transcript.split()
    require([word.text for word in words] in ([], said), field, f"be those of the transcript, {said}", rows, advice)
    before = 0.0
    for word in words:
        seconds = all(type(time) in (int, float) for time in word[1:])
        in_order = seconds and before <= word.start < word.end <= duration
        require(in_order, field, f"have times in order, within the {duration:g} s of the recording", word, advice)
        before = word.end
    return words


def _read_samples(path: Path, document: Row) -> list[Utterance]:
    """Reads the utterances of deepspeech.pytorch's manifest."""
    folder = path.parent / _string(document, "root_path", str(path))
    require(isinstance(document["samples"], list), f"{path}: samples", "be a list", document["samples"])
    utterances = []
    for position, sample in enumerate(document["samples"]):
        where = f"{path}: samples[{position}]"
        require(isinstance(sample, dict), where, "be a JSON object", sample)
        audio = folder / _string(sample, "wav_path", where)
        transcript = _read_transcript(folder / _string(sample, "transcript_path", where), where)
        utterances.append(Utterance(audio, math.nan, transcript, "", place=f"samples[{position}]"))
    return _name(utterances)


def _with_durations(path: Path, utterances: list[Utterance], transcribed: bool) -> list[Utterance]:
    """Reads missing durations from the headers of the audio. Without transcripts, only segments need theirs."""

    def lacking(utterance: Utterance) -> bool:
        return math.isnan(utterance.duration) and (transcribed or utterance.offset is not None)

    missing = {utterance.audio: 0.0 for utterance in utterances if lacking(utterance)}
    if not missing:
        return utterances
    with ThreadPoolExecutor() as pool:
        lengths = tqdm(
            pool.map(_read_duration, missing),
            desc=f"reading durations of {path.name}",
            total=len(missing),
            unit=" files",
            delay=1,
        )
        missing = dict(zip(missing, lengths, strict=True))
    filled = []
    for utterance in utterances:
        if lacking(utterance):
            duration = max(missing[utterance.audio] - (utterance.offset or 0.0), 0.0)
            field = f"{path}, {utterance.place}: duration of {utterance.audio}"
            require(duration <= MAX_DURATION, field, f"be 0 to {MAX_DURATION} seconds", duration, "Cut the recording.")
            utterance = dataclasses.replace(utterance, duration=duration)
        filled.append(utterance)
    logger.info(f"{path}: {len(missing):,} durations are read from the audio each time; data merge stores them")
    return filled


def _read_transcript(path: Path, where: str) -> str:
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - Path's raise if the name is too long
        # A manifest could name an endless device, or a pipe that nobody writes to.
        raise InputError(f"{where}: transcript_path must name a file, got {shorten(str(path), 500)}. Correct the path.")
    try:
        return read_text(path).strip()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _required(row: Row, key: str, where: str) -> Any:
    require(key in row, f"{where}: {key}", "be present", ", ".join(row), "Add it.")
    return row[key]


def _string(row: Row, key: str, where: str) -> str:
    value = _required(row, key, where)
    require(value is not None, f"{where}: {key}", "be a string", None, "Write what is meant, or remove the line.")
    require(type(value) in (str, int), f"{where}: {key}", "be a string", value, "Put it in quotes.")
    found = UNPRINTABLE.search(str(value))
    require(not found, f"{where}: {key}", "have no null character and no unpaired surrogate", value, "Correct it.")
    return str(value)


def _read_duration(audio: Path) -> float:
    """Reads a file's duration in seconds; 0 if it cannot be read, so that `usable.check_utterances` counts it."""
    try:
        return audio_duration(audio)
    except InputError:
        return 0.0


def _name(utterances: list[Utterance]) -> list[Utterance]:
    """Names the utterances without an id after their audio files."""
    taken = {""} | {utterance.id for utterance in utterances}
    counts: collections.Counter[str] = collections.Counter()
    named = []
    for utterance in utterances:
        name, stem = utterance.id, utterance.audio.stem
        while not utterance.id and name in taken:
            counts[stem] += 1
            name = stem if counts[stem] == 1 else f"{stem}-{counts[stem]}"
        taken.add(name)
        named.append(dataclasses.replace(utterance, id=name))
    return named


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

"""Reads transcripts from the files of other tools."""

import collections
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ds2_jax.data.manifest import read_text
from ds2_jax.system.checks import UNPRINTABLE, require
from ds2_jax.system.errors import NO_JSON, InputError, shorten

logger = logging.getLogger(__package__)

Form = Literal["JSON lines", "CTM", "STM", "trn", "text"]
IGNORED = "ignore_time_segment_in_scoring"
"""An STM segment with this text is not scored, and words that are recognised in it do not count."""
REFERENCE_KEYS = ("reference", "transcript", "text", "sentence")
HYPOTHESIS_KEYS = ("hypothesis", "pred_text", "text", "transcript")
"""Keys of the text in JSON lines. `evaluate` writes reference and hypothesis, NeMo text and pred_text, manifests
transcript, `transcribe` text, and Common Voice sentence."""
LABELS = re.compile(r"^<(?:[^<>\s]*,[^<>\s]*|o|na)>\s*", re.IGNORECASE)
"""Labels of an STM segment, such as <o,f0,male>; <unk> is a word."""
LONGEST = 1e9
"""Seconds that no recording lasts."""
TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")


class Text(NamedTuple):
    """A transcript of a file.

    Attributes:
        names: of JSON lines, its id, the path of its recording, the name of that file without folder and suffix, and
            the id that a manifest would give it; "" for what is not known. Other formats have one or two names. Empty
            if it has only its place in the file.
        text: the words as written.
        place: where it stands, such as "line 3".
        speaker: name of the speaker; "" if unknown.
        channel: the recording and the channel of a segment of it; None for other texts.
        start: start of the segment in seconds; 0 in JSON lines.
        end: its end; in JSON lines the duration, 0 if that is not known.
    """

    names: tuple[str, ...]
    text: str
    place: str
    speaker: str = ""
    channel: tuple[str, str] | None = None
    start: float = 0.0
    end: float = 0.0


class Transcripts(NamedTuple):
    """The transcripts of a file.

    Attributes:
        path: the file.
        form: its format.
        texts: the transcripts; the words of a CTM file are a text each.
    """

    path: Path
    form: Form
    texts: Sequence[Text]


def read_transcripts(path: Path, keys: Sequence[str]) -> Transcripts:
    """Reads a file in the format that its name or its content shows.

    * .ctm: lines of RECORDING CHANNEL START DURATION WORD [CONFIDENCE]
    * .stm: lines of RECORDING CHANNEL SPEAKER START END [<LABELS>] WORDS
    * .trn, or if every line ends with a name in brackets: WORDS (NAME)
    * .jsonl or .json, or if it begins with a brace: a JSON object a line
    * otherwise text: a line each, which may begin with a name

    Args:
        path: the file, in UTF-8.
        keys: the keys of JSON lines that may hold the text. The first of them that any line has is used for all.

    Raises:
        InputError: the file cannot be read, or has a line of another form.
    """
    content = read_text(path)
    lines = [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    suffix = path.suffix.lower()
    if suffix in (".ctm", ".stm", ".trn"):
        lines = [(number, line) for number, line in lines if not line.lstrip().startswith(";;")]
    if suffix in (".ctm", ".stm"):
        read: Callable[[str, str], Text] = _ctm_word if suffix == ".ctm" else _stm_segment
        form: Form = "CTM" if suffix == ".ctm" else "STM"
    elif suffix in (".jsonl", ".json") or (suffix != ".trn" and re.match(r'\s*\{\s*"', content)):
        return Transcripts(path, "JSON lines", _read_json(path, lines, keys))
    elif suffix == ".trn" or (lines and all(TRN.fullmatch(line) for _, line in lines)):
        read, form = _trn_text, "trn"
    else:
        plain = content.removesuffix("\n").split("\n") if content else []
        return Transcripts(path, "text", [Text((), line, f"line {number}") for number, line in enumerate(plain, 1)])
    found = [read(line, f"{path}, line {number}")._replace(place=f"line {number}") for number, line in lines]
    return Transcripts(path, form, found)


def _ctm_word(line: str, where: str) -> Text:
    fields = line.split()
    rule = "be RECORDING CHANNEL START DURATION WORD [CONFIDENCE]"
    require(len(fields) in (5, 6), where, rule, shorten(line), "Correct it.")
    recording, channel, start, duration, word = fields[:5]
    begin, length = _seconds(start, where), _seconds(duration, where)
    return Text((recording,), word, "", channel=(recording, channel), start=begin, end=begin + length)


def _stm_segment(line: str, where: str) -> Text:
    fields = line.split(maxsplit=5)
    rule = "be RECORDING CHANNEL SPEAKER START END [<LABELS>] WORDS"
    require(len(fields) >= 5, where, rule, shorten(line), "Correct it.")
    recording, channel, speaker, start, end, words = (*fields, "")[:6]
    begin, stop = _seconds(start, where), _seconds(end, where)
    require(begin <= stop, where, "have its end at or after its start", f"{start} {end}", "Correct it.")
    text = LABELS.sub("", words)
    text = _words(text, where)
    name = f"{recording}-{channel}-{speaker}-{begin:.2f}-{stop:.2f}"
    return Text((name,), text, "", speaker, (recording, channel), begin, stop)


def _trn_text(line: str, where: str) -> Text:
    found = TRN.fullmatch(line)
    if found is None:
        raise InputError(f"{where} must be WORDS (NAME), got {shorten(repr(line))}. Correct it.")
    speaker = re.split("[-_]", found[2])[0] if re.search("[-_]", found[2]) else ""  # as sclite's -i wsj and spu_id do
    return Text((found[2],), _words(found[1], where), "", speaker)


def _words(text: str, where: str) -> str:
    """Removes @, which stands for nothing.

    Raises:
        InputError: the text has alternatives, as in { a / b }.
    """
    advice = "Write one reading; a rules file can make others equal."
    require(not re.search("[{}]", text), where, "have no alternatives in braces", shorten(text), advice)
    return " ".join(word for word in text.split() if word != "@")


def _read_json(path: Path, lines: Sequence[tuple[int, str]], keys: Sequence[str]) -> list[Text]:
    """Reads JSON lines. Lines without an id are named as in manifests; `transcribe`'s lines of errors are left out."""
    rows = [(f"line {number}", _json_object(line, f"{path}, line {number}")) for number, line in lines]
    key = next((each for each in keys if any(each in row for _, row in rows)), None)
    taken = collections.Counter(_string(row, "id", f"{path}, {place}") for place, row in rows)
    texts = []
    for place, row in rows:
        where = f"{path}, {place}"
        if "error" in row and key not in row:
            logger.warning(f"{where} has the error {shorten(str(row['error']))} instead of a text")
            continue
        if key is None:
            raise InputError(f"{where} must have one of the keys {', '.join(keys)}, got {', '.join(row)}. Add it.")
        require(key in row, f"{where}: {key}", "be present, as in other lines", ", ".join(row), "Add it.")
        require(row[key] is not None, f"{where}: {key}", "be a string", row[key])  # _string takes null for ""
        text, speaker, name = (_string(row, each, where) for each in (key, "speaker", "id"))
        audio = next((_string(row, each, where) for each in ("audio", "audio_filepath", "file") if row.get(each)), "")
        offset, duration = (_number(row.get(each)) for each in ("offset", "duration"))
        stem = audio and Path(audio).stem
        numbered = ""
        if not name and stem:
            taken[stem] += 1
            numbered = stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
        part = f" at {offset:g} s" if offset else ""  # a segment of the file
        names = (name, audio and audio + part, stem and stem + part, numbered)
        texts.append(Text(names if any(names) else (), text, place, speaker, end=duration))
    return texts


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except NO_JSON as error:
        advice = "Write an object a line: jq -c . OLD > NEW, or jq -c '.[]' for a list."
        raise InputError(f"{where} must be a JSON object, got {shorten(repr(line))}. {advice}") from error
    require(isinstance(row, dict), where, "be a JSON object", row, "Write an object a line: jq -c '.[]' OLD > NEW.")
    return dict(row)


def _number(value: object) -> float:
    """A number of seconds; 0 for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST:
        return float(value)
    return 0.0


def _string(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key, "")
    value = "" if value is None else str(value) if type(value) is int else value
    require(isinstance(value, str), f"{where}: {key}", "be a string", value)
    found = UNPRINTABLE.search(value)
    require(not found, f"{where}: {key}", "have no null character and no unpaired surrogate", value, "Correct it.")
    return str(value)


def _seconds(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    require(0 <= value < math.inf, where, "have times of 0 or more seconds", word, "Correct it.")
    return value

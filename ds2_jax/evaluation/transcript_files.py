"""Reads transcripts from the files of other tools, and finds what was recognised for each reference."""

import collections
import itertools
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
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
"""Keys of the text in JSON lines: of results of `evaluate`, of NeMo, of manifests and of `transcribe`."""
LABELS = re.compile(r"^<(?:[^<>\s]*,[^<>\s]*|o|na)>\s*", re.IGNORECASE)
"""Labels of an STM segment, such as <o,f0,male>; <unk> is a word."""
LONGEST = 1e9
"""Seconds that no recording lasts."""
TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")


class Text(NamedTuple):
    """A transcript of a file.

    Attributes:
        names: its id, the path of its recording, the name of that file without folder and suffix, and the id that a
            manifest would give it; "" for what is not known. Empty if it has only its place in the file.
        text: the words as written.
        place: where it stands, such as "line 3".
        speaker: name of the speaker; "" if unknown.
        channel: the recording and the channel of a segment of it; None for other texts.
        start: start of the segment in seconds.
        end: its end.
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


class Pairs(NamedTuple):
    """References with what was recognised.

    Attributes:
        pairs: each reference and the words that were recognised for it.
        matched: how they were matched.
        missing: the names of references for which the other file has nothing.
        ignored: number of recognised words in segments that are not scored.
    """

    pairs: Sequence[tuple[Text, str]]
    matched: Literal["name", "line", "time"]
    missing: Sequence[str] = ()
    ignored: int = 0


def read_transcripts(path: Path, keys: Sequence[str]) -> Transcripts:
    """Reads a file in the format that its name or its content shows.

    * .ctm: lines of RECORDING CHANNEL START DURATION WORD [CONFIDENCE]
    * .stm: lines of RECORDING CHANNEL SPEAKER START END [<LABELS>] WORDS
    * .trn, or if every line ends with a name in brackets: WORDS (NAME)
    * .jsonl or .json, or if it begins with a brace: a JSON object a line
    * otherwise text: a line each, which may begin with a name

    Args:
        path: the file, in UTF-8.
        keys: the keys of JSON lines that may hold the text. The first that a line has counts for all lines.

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


def pair(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    """Finds what was recognised for each reference.

    The words of a CTM file go to the segment of an STM file in which their middle lies, or to the nearest one, or they
    are all the text of their recording. Other texts are matched by name, and lines without names by their places.

    Raises:
        InputError: the files do not fit: a name occurs twice, a hypothesis has no reference, or files without names
            have different numbers of lines.
    """
    if references.form == "STM":
        rule = "be a CTM file, since the references are segments of an STM file"
        require(
            hypotheses.form == "CTM", str(hypotheses.path), rule, hypotheses.form, "Write one: transcribe --format ctm."
        )
        return _by_time(references, hypotheses)
    require(hypotheses.form != "STM", str(hypotheses.path), "be transcripts, not segments", "STM", "Give a CTM file.")
    references, hypotheses = _whole(references), _whole(hypotheses)
    if references.form == hypotheses.form == "text":
        heads = [_with_names(each) for each in (references, hypotheses)]
        if not _named_alike(*heads):
            return _by_place(references, hypotheses)
        references, hypotheses = heads
    else:
        references, hypotheses = (_with_names(e) if e.form == "text" else e for e in (references, hypotheses))
    return _by_name(references, hypotheses)


def _named_alike(references: Transcripts, hypotheses: Transcripts) -> bool:
    """Whether the first words of the lines of two texts are names, each once in its file.

    Names have a digit, as in u1, or one of _./- and most of those of the smaller file are in both. Other words are
    names if both files have the same ones in another order.

    Raises:
        InputError: they are names, but few are in both.
    """
    ours, theirs = ([text.names[0] for text in each.texts] for each in (references, hypotheses))
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
        return False
    if not (_look_like_names(ours) and _look_like_names(theirs)):
        return ours != theirs and sorted(ours) == sorted(theirs)
    fewest, common = min(len(ours), len(theirs)), len(set(ours) & set(theirs))
    if 0 < 2 * common < fewest:
        rule, some = f"have the names of {references.path}", f"{common:,} of {fewest:,} in common"
        raise InputError(f"{hypotheses.path} must {rule}, got {some}. Correct the first words of the lines.")
    return common > 0


def _look_like_names(words: Sequence[str]) -> bool:
    return all(re.search(r"[\d_./-]", word) for word in words)


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
    recording, channel, speaker, start, end, words = *fields[:5], *fields[5:], *([""] if len(fields) == 5 else [])
    begin, stop = _seconds(start, where), _seconds(end, where)
    require(begin <= stop, where, "have its end behind its start", f"{start} {end}", "Correct it.")
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
        require(isinstance(row[key], str | int), f"{where}: {key}", "be a string", row[key])
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
    return float(value) if type(value) in (int, float) and 0 <= value < LONGEST else 0.0  # type: ignore[arg-type, operator]


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
    require(0 <= value < math.inf, where, "have times in seconds", word, "Correct it.")
    return value


def _whole(transcripts: Transcripts) -> Transcripts:
    """Joins the words of a CTM file to one text for each recording, and channel if a recording has several."""
    if transcripts.form != "CTM":
        return transcripts
    words: dict[tuple[str, str], list[Text]] = collections.defaultdict(list)
    for each in transcripts.texts:
        assert each.channel is not None
        words[each.channel].append(each)
    several = collections.Counter(recording for recording, _ in words)
    texts = []
    for (recording, channel), own in words.items():
        own.sort(key=lambda each: each.start)
        names = (recording, f"{recording}-{channel}")[several[recording] > 1 :]
        texts.append(Text(names, " ".join(each.text for each in own), own[0].place))
    return transcripts._replace(texts=texts)


def _with_names(transcripts: Transcripts) -> Transcripts:
    """Takes the first word of each line as its name."""
    named = []
    for text in transcripts.texts:
        line = text.text.strip()
        name, _, words = line.partition("\t") if "\t" in line else " ".join(line.split()).partition(" ")
        if name:
            named.append(text._replace(names=(name, name, Path(name).stem), text=words))
    return transcripts._replace(texts=named)


def _by_place(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    rule = f"have as many lines as {references.path}, {len(references.texts)}, because its lines have no names"
    num_lines = len(hypotheses.texts)
    require(
        num_lines == len(references.texts), str(hypotheses.path), rule, num_lines, "Let each line begin with a name."
    )
    named = [text._replace(names=(text.place,)) for text in references.texts]
    return Pairs([(text, other.text) for text, other in zip(named, hypotheses.texts, strict=True)], "line")


def _by_name(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    """Uses the first kind of name that fits: ids, paths, names of files, and then one kind for another."""
    problems = []
    kinds = [(0, 0), (1, 1), (2, 2), *itertools.permutations(range(4), 2)]  # the place in both files is no name
    for ours, theirs in kinds:
        try:
            said, heard = _named(references, ours), _named(hypotheses, theirs)
        except InputError as error:
            problems.append(error)
            continue
        unknown = [name for name in heard if name not in said]
        if not unknown:
            missing = [_name(text) for name, text in said.items() if name not in heard]
            return Pairs(
                [(text, heard[name].text if name in heard else "") for name, text in said.items()], "name", missing
            )
        where = f"{hypotheses.path}, {heard[unknown[0]].place}"
        some = f"{shorten(unknown[0])}; {len(unknown)} of {len(heard)} names have no reference"
        problems.append(
            InputError(f"{where} must name an utterance of {references.path}, got {some}. Correct the names.")
        )
    raise problems[0]


def _name(text: Text) -> str:
    return next(filter(None, text.names))


def _named(transcripts: Transcripts, kind: int) -> dict[str, Text]:
    """Sorts texts by a kind of their names.

    Raises:
        InputError: a text has no such name, or two have the same.
    """
    named: dict[str, Text] = {}
    for text in transcripts.texts:
        where = f"{transcripts.path}, {text.place}"
        name = text.names[min(kind, len(text.names) - 1)] if text.names else ""
        require(bool(name), where, "have a name, such as an id", shorten(text.text), "Add it.")
        if name in named:
            raise InputError(f"{where} must have a name of its own, got {name} again. Rename one.")
        named[name] = text
    return named


def _by_time(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    segments: dict[tuple[str, str], list[Text]] = collections.defaultdict(list)
    for text in references.texts:
        segments[text.channel or ("", "")].append(text)
    heard: dict[int, list[Text]] = collections.defaultdict(list)
    for word in sorted(hypotheses.texts, key=lambda each: each.start):
        own = segments.get(word.channel or ("", ""))
        if not own:
            where, rule = f"{hypotheses.path}, {word.place}", f"be of a recording and channel of {references.path}"
            raise InputError(f"{where} must {rule}, got {word.channel}. Correct the names.")
        middle = (word.start + word.end) / 2
        near = [each for each in own if not _is_ignored(each) or each.start <= middle <= each.end] or own
        heard[id(min(near, key=lambda each: _distance(each, middle)))].append(word)
    pairs, missing, ignored = [], [], 0
    for text in references.texts:
        words = [each.text for each in heard[id(text)]]
        if _is_ignored(text):
            ignored += len(words)
            continue
        pairs.append((text, " ".join(words)))
        if not words and text.text.strip():
            missing.append(text.names[0])
    return Pairs(pairs, "time", missing, ignored)


def _is_ignored(segment: Text) -> bool:
    return segment.text.strip().lower() == IGNORED


def _distance(segment: Text, middle: float) -> tuple[float, float]:
    """How far a time is from a segment, in seconds; of those that it lies in, the one whose middle is nearest."""
    outside = max(segment.start - middle, middle - segment.end, 0.0)
    return outside, abs((segment.start + segment.end) / 2 - middle)


def names(texts: Iterable[str], most: int = 3) -> str:
    """Lists the first names of some."""
    listed = list(texts)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(map(shorten, listed[:most])) + more

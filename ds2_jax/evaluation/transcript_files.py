"""Reads transcripts from the files of other tools, and finds what was recognised for each reference."""

import collections
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ds2_jax.data.manifest import read_text
from ds2_jax.system.checks import require
from ds2_jax.system.errors import NO_JSON, InputError, shorten

Form = Literal["JSON lines", "CTM", "STM", "trn", "text"]
IGNORED = "ignore_time_segment_in_scoring"
"""An STM segment with this text is not scored, and words that are recognised in it do not count."""
REFERENCE_KEYS = ("reference", "transcript", "text", "sentence")
HYPOTHESIS_KEYS = ("hypothesis", "pred_text", "text", "transcript")
"""Keys of the text in JSON lines: of results of `evaluate`, of NeMo, of manifests and of `transcribe`."""
LABELS = re.compile(r"^<(?:[^<>\s]*,[^<>\s]*|o|na)>\s*", re.IGNORECASE)
"""Labels of an STM segment, such as <o,f0,male>; <unk> is a word."""
TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")


class Text(NamedTuple):
    """A transcript of a file.

    Attributes:
        names: what it may be called, the best name first; empty if it has only its place in the file.
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
        keys: the keys of JSON lines that hold the text, the first that is there counts.

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
        read, form = (lambda line, where: _json_text(line, where, keys)), "JSON lines"
    elif suffix == ".trn" or (lines and all(TRN.fullmatch(line) for _, line in lines)):
        read, form = _trn_text, "trn"
    else:
        plain = content.removesuffix("\n").split("\n") if content else []
        texts = [Text((), line, f"line {number}") for number, line in enumerate(plain, 1)]
        require(bool(lines), str(path), "hold transcripts", "an empty file")
        return Transcripts(path, "text", texts)
    require(bool(lines), str(path), "hold transcripts", "an empty file")
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
    _refuse_alternatives(text, where)
    name = f"{recording}-{channel}-{speaker}-{begin:.2f}-{stop:.2f}"
    return Text((name,), text, "", speaker, (recording, channel), begin, stop)


def _trn_text(line: str, where: str) -> Text:
    found = TRN.fullmatch(line)
    if found is None:
        raise InputError(f"{where} must be WORDS (NAME), got {shorten(repr(line))}. Correct it.")
    _refuse_alternatives(found[1], where)
    speaker = re.split("[-_]", found[2])[0] if re.search("[-_]", found[2]) else ""  # as sclite's -i wsj and spu_id do
    return Text((found[2],), found[1].strip(), "", speaker)


def _refuse_alternatives(text: str, where: str) -> None:
    advice = "Write one reading; a rules file can make others equal."
    require(not re.search(r"(^|\s)[{}](\s|$)", text), where, "have no alternatives in braces", shorten(text), advice)


def _json_text(line: str, where: str, keys: Sequence[str]) -> Text:
    try:
        row = json.loads(line)
    except NO_JSON as error:
        raise InputError(f"{where} must be a JSON object, got {shorten(repr(line))}. {error}.") from error
    require(isinstance(row, dict), where, "be a JSON object", row)
    key = next((each for each in keys if each in row), None)
    if key is None:
        raise InputError(f"{where} must have one of the keys {', '.join(keys)}, got {', '.join(row)}. Add it.")
    text, speaker = _string(row, key, where), _string(row, "speaker", where)
    audio = next((_string(row, each, where) for each in ("audio", "audio_filepath", "file") if row.get(each)), "")
    offset = row.get("offset")  # a segment of the file
    part = f" at {offset:g} s" if type(offset) in (int, float) and offset else ""
    names = (_string(row, "id", where), audio and audio + part, audio and Path(audio).stem + part)
    duration = row.get("duration")
    known = type(duration) in (int, float) and math.isfinite(duration) and duration >= 0
    end = float(duration) if known else 0.0
    return Text(tuple(dict.fromkeys(filter(None, names))), text, "", speaker, end=end)


def _string(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key, "")
    value = "" if value is None else str(value) if type(value) is int else value
    require(isinstance(value, str), f"{where}: {key}", "be a string", value)
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
        name, _, words = " ".join(text.text.split()).partition(" ")
        if name:
            named.append(text._replace(names=tuple(dict.fromkeys((name, Path(name).stem))), text=words))
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
    """Uses the first kind of name that both files have and that fits."""
    kinds = max(1, *(len(text.names) for each in (references, hypotheses) for text in each.texts))
    problems = []
    for ours in range(kinds):
        for theirs in range(kinds):
            try:
                said = _named(references, ours)
                heard = _named(hypotheses, theirs)
            except InputError as error:
                problems.append(error)
                continue
            unknown = [name for name in heard if name not in said]
            if not unknown:
                missing = [name for name in said if name not in heard]
                pairs = [
                    (text._replace(names=(name,)), heard[name].text if name in heard else "")
                    for name, text in said.items()
                ]
                return Pairs(pairs, "name", missing)
            where = f"{hypotheses.path}, {heard[unknown[0]].place}"
            some = f"{shorten(unknown[0])}; {len(unknown)} of {len(heard)} names have no reference"
            rule = f"name an utterance of {references.path}"
            problems.append(InputError(f"{where} must {rule}, got {some}. Correct the names."))
    raise problems[0]


def _named(transcripts: Transcripts, kind: int) -> dict[str, Text]:
    """Sorts texts by a kind of their names.

    Raises:
        InputError: a text has no such name, or two have the same.
    """
    named: dict[str, Text] = {}
    for text in transcripts.texts:
        where = f"{transcripts.path}, {text.place}"
        require(kind < len(text.names), where, "have a name, such as an id", shorten(text.text), "Add it.")
        name = text.names[kind]
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
        heard[id(min(own, key=lambda each: _distance(each, middle)))].append(word)
    pairs, missing, ignored = [], [], 0
    for text in references.texts:
        words = [each.text for each in heard[id(text)]]
        if text.text.strip().lower() == IGNORED:
            ignored += len(words)
            continue
        pairs.append((text, " ".join(words)))
        if not words and text.text.strip():
            missing.append(text.names[0])
    return Pairs(pairs, "time", missing, ignored)


def _distance(segment: Text, middle: float) -> tuple[float, float]:
    """How far a time is from a segment, in seconds; of those that it lies in, the one whose middle is nearest."""
    outside = max(segment.start - middle, middle - segment.end, 0.0)
    return outside, abs((segment.start + segment.end) / 2 - middle)


def names(texts: Iterable[str], most: int = 3) -> str:
    """Lists the first names of some."""
    listed = list(texts)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(map(shorten, listed[:most])) + more

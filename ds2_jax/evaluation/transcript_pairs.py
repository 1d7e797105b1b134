"""Finds what was recognised for each reference."""

import collections
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ds2_jax.evaluation.transcript_files import IGNORED, Text, Transcripts
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten


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


def pair(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    """Finds what was recognised for each reference.

    With an STM file, each word of a CTM file goes to the segment that contains its middle, or else to the nearest one.
    With other references, the words of a recording are one text. Other texts are matched by name, and lines without
    names by their places.

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

    Names have a digit, as in u1, or one of _./- and at least half of those of the smaller file are in both. If none is
    in both, they are no names. Other words are names if both files have the same ones in another order.

    Raises:
        InputError: some names are in both, but fewer than half.
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
    wanted = f"{references.path}, {len(references.texts)}"
    rule = f"have as many lines as {wanted}, because the first words of the lines do not match as names"
    num_lines = len(hypotheses.texts)
    require(
        num_lines == len(references.texts), str(hypotheses.path), rule, num_lines, "Let each line begin with a name."
    )
    named = [text._replace(names=(text.place,)) for text in references.texts]
    return Pairs([(text, other.text) for text, other in zip(named, hypotheses.texts, strict=True)], "line")


def _by_name(references: Transcripts, hypotheses: Transcripts) -> Pairs:
    """Uses the first kind of name that fits: ids, paths, names of files, and then one kind for another."""
    problems = []
    kinds = [(0, 0), (1, 1), (2, 2), *itertools.permutations(range(4), 2)]  # not (3, 3): places in the files
    for ours, theirs in kinds:
        try:
            said, heard = _named(references, ours), _named(hypotheses, theirs)
        except InputError as error:
            problems.append(error)
            continue
        unknown = [name for name in heard if name not in said]
        if not unknown:
            missing = [name_of(text) for name, text in said.items() if name not in heard and text.text.strip()]
            return Pairs(
                [(text, heard[name].text if name in heard else "") for name, text in said.items()], "name", missing
            )
        where = f"{hypotheses.path}, {heard[unknown[0]].place}"
        some = f"{shorten(unknown[0])}; {len(unknown)} of {len(heard)} names have no reference"
        problems.append(
            InputError(f"{where} must name an utterance of {references.path}, got {some}. Correct the names.")
        )
    raise problems[0]


def name_of(text: Text) -> str:
    """Returns the first name of a text that is known."""
    return next(filter(None, text.names))


def _named(transcripts: Transcripts, kind: int) -> dict[str, Text]:
    """Indexes texts by one kind of their names.

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
        assert text.channel is not None
        segments[text.channel].append(text)
    heard: dict[int, list[Text]] = collections.defaultdict(list)
    for word in sorted(hypotheses.texts, key=lambda each: each.start):
        assert word.channel is not None
        own = segments.get(word.channel)
        if not own:
            where, rule = f"{hypotheses.path}, {word.place}", f"be of a recording and channel of {references.path}"
            raise InputError(f"{where} must {rule}, got {word.channel}. Correct the names.")
        middle = (word.start + word.end) / 2
        # A segment that is not scored takes only the words inside it.
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


def list_names(texts: Iterable[str], most: int = 3) -> str:
    """Joins names; if there are more than `most`, the rest is counted."""
    listed = list(texts)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(map(shorten, listed[:most])) + more

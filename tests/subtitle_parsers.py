"""Strict parsers of SRT, WebVTT, CTM and TSV, written from the specifications, independently of the package."""

import html
import re
from typing import NamedTuple

UNESCAPED = {r"\\": "\\", r"\t": "\t", r"\n": "\n", r"\r": "\r"}


class ParsedCue(NamedTuple):
    start: int  # milliseconds
    end: int
    lines: list[str]


def _time(pattern: str, text: str) -> int:
    match = re.fullmatch(pattern, text, re.ASCII)
    assert match, f"no time: {text!r}"
    hours, minutes, seconds, milliseconds = map(int, match.groups())
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def parse_srt(text: str) -> list[ParsedCue]:
    """Parses SubRip: each block has a number that counts from 1, a span, lines of text and one empty line."""
    assert "\r" not in text
    assert text == "" or text.endswith("\n\n")
    cues = []
    for number, block in enumerate(text.split("\n\n")[:-1], start=1):
        counter, span, *lines = block.split("\n")
        assert counter == str(number)
        start, arrow, end = span.split(" ")
        assert arrow == "-->"
        assert lines
        assert all(line.strip() for line in lines)
        assert "-->" not in "".join(lines)
        pattern = r"(\d\d+):(\d\d):(\d\d),(\d\d\d)"
        cues.append(ParsedCue(_time(pattern, start), _time(pattern, end), lines))
    return cues


def parse_vtt(text: str) -> list[ParsedCue]:
    """Parses W3C WebVTT, section 4.1: the file body; cue blocks without identifiers or settings; text without tags."""
    assert "\r" not in text
    assert "\0" not in text
    assert text.startswith("WEBVTT\n\n")
    cues: list[ParsedCue] = []
    for block in re.split(r"\n{2,}", text.removeprefix("WEBVTT").strip("\n")):
        if not block:
            continue
        span, *lines = block.split("\n")
        match = re.fullmatch(r"(\S+)[ \t]+-->[ \t]+(\S+)", span)
        assert match, f"no span: {span!r}"
        start, end = (_time(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})", each) for each in match.groups())
        assert start < end, "the end must be greater than the start"
        assert not cues or start >= cues[-1].start, "cues must be in order of their starts"
        assert lines
        for line in lines:
            assert "-->" not in line
            assert "<" not in line
            assert not re.search(r"&(?!(amp|lt|gt);)", line), "an ampersand must begin a character reference"
        cues.append(ParsedCue(start, end, [html.unescape(line) for line in lines]))
    return cues


class CtmWord(NamedTuple):
    recording: str
    channel: str
    start: float
    duration: float
    word: str
    confidence: float


def parse_ctm(text: str) -> list[CtmWord]:
    """Parses NIST SCTK's CTM: `<F> <C> <BT> <DUR> word [ <CONF> ]` by file, channel (ASCII) and time; `;;` comments."""
    words = []
    for line in text.split("\n")[:-1]:
        assert not line.startswith(";;")
        fields = line.split()  # at any white space
        assert line == " ".join(fields)
        recording, channel, start, duration, word, confidence = fields
        assert re.fullmatch(r"[A-Za-z0-9]", channel)
        assert re.fullmatch(r"\d+\.\d+", start)
        assert re.fullmatch(r"\d+\.\d+", duration)
        assert float(duration) > 0
        assert re.fullmatch(r"[01]\.\d+", confidence)
        assert float(confidence) <= 1
        words.append(CtmWord(recording, channel, float(start), float(duration), word, float(confidence)))
    assert text == "" or text.endswith("\n")
    keys = [(each.recording.encode("utf-8", "surrogateescape"), each.channel, each.start) for each in words]
    assert keys == sorted(keys)
    return words


def parse_tsv(text: str) -> list[tuple[int, int, str]]:
    """Parses TSV: a header and rows with as many fields; a backslash escapes tabs and line ends inside a field."""
    assert text.endswith("\n")
    header, *rows = text.removesuffix("\n").split("\n")
    assert header.split("\t") == ["start", "end", "text"]
    parsed = []
    for row in rows:
        assert "\r" not in row
        start, end, field = row.split("\t")
        parsed.append((int(start), int(end), re.sub(r"\\.", lambda match: UNESCAPED[match[0]], field)))
    return parsed

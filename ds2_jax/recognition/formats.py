"""Writes transcripts as txt, json, srt, vtt, ctm or tsv, each by its specification. All lines end in LF."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.recognition.cues import Cue, make_cues
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.system.checks import UNPRINTABLE

Format = Literal["txt", "json", "srt", "vtt", "ctm", "tsv"]
LiveFormat = Literal["txt", "json", "srt", "vtt"]
"""Formats that can be written while the recording goes on."""


def to_txt(transcript: Transcript) -> str:
    """Formats the text as one line."""
    return f"{transcript.text}\n"


def to_json(transcript: Transcript, utterance_id: str = "") -> str:
    r"""Formats a transcript as a JSON object on one line (JSON Lines), in UTF-8.

    `audio` names the file, and `id` the utterance if a manifest names it. `duration` is the length of the recording.
    `text` is everything that was recognised, and `confidence` the probability that the least certain segment is right.
    Each of `words` has `word`, `start`, `end`, `confidence` and `characters`; a character is a list of its text, start
    and end. Each of `segments`, the parts that were decoded separately, has `start`, `end`, `text` and `confidence`. If
    the decoder gave several readings, `readings` lists them, the best first, with `text`, `confidence` and `score`
    (nats, larger is better). Times are seconds from the start of the recording. If the file's name is not valid UTF-8,
    all characters outside ASCII are escaped, and its invalid bytes become \udc80 to \udcff.
    """
    name = str(transcript.audio)
    line = {
        "audio": name,
        **({"id": utterance_id} if utterance_id else {}),
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "confidence": round(transcript.confidence, 4),
        "words": [_json_word(word) for word in transcript.words],
        "segments": [_json_segment(segment) for segment in transcript.segments],
    }
    return json.dumps(line, ensure_ascii=bool(UNPRINTABLE.search(name)), allow_nan=False) + "\n"


def _json_word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": round(word.confidence, 4),
        "characters": [[each.text, round(each.start, 3), round(each.end, 3)] for each in word.characters],
    }


def _json_segment(segment: Segment) -> dict[str, Any]:
    best = segment.readings[0]
    values: dict[str, Any] = {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": best.text,
        "confidence": _confidence(best),
    }
    if len(segment.readings) > 1:
        values["readings"] = [
            {"text": each.text, "confidence": _confidence(each), "score": round(each.score, 3)}
            for each in segment.readings
        ]
    return values


def _confidence(reading: Hypothesis) -> float:
    return round(reading.confidence, 4)


def to_srt(transcript: Transcript) -> str:
    """Formats SubRip subtitles: numbered cues, each with its times, one or two lines and an empty line.

    The format has no escapes. An arrow `-->` in the text gets a space, because it ends the cue in some players. SubRip
    wrote CRLF; players, editors and the tools of a pipe also read LF.

    Source: the files of SubRip, which has no other specification.
    """
    return "".join(_srt_cue(number, cue) for number, cue in enumerate(_cues(transcript), start=1))


def _srt_cue(number: int, cue: Cue) -> str:
    return f"{number}\n{_span(cue, ',')}\n{_cue_text(cue).replace('-->', '-- >')}\n\n"


def to_vtt(transcript: Transcript) -> str:
    """Formats WebVTT subtitles.

    Source: W3C, WebVTT: The Web Video Text Tracks Format, section 4 (syntax). It asks for an escaped `>` only at the
    end of an arrow; like other writers, this one always escapes it.
    """
    return "WEBVTT\n\n" + "".join(map(_vtt_cue, _cues(transcript)))


def _vtt_cue(cue: Cue) -> str:
    escapes = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
    return f"{_span(cue, '.')}\n{_cue_text(cue).translate(escapes)}\n\n"


def to_tsv(transcript: Transcript) -> str:
    r"""Formats the subtitles as a table: a header, then start, end (whole milliseconds) and text, separated by tabs.

    The columns are those of Whisper. A backslash, tab, LF or CR in the text is written `\\`, `\t`, `\n` or `\r`.
    """
    escapes = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
    rows = [f"{cue.start}\t{cue.end}\t{cue.text.translate(escapes)}\n" for cue in _cues(transcript)]
    return "".join(["start\tend\ttext\n", *rows])


def to_ctm(transcript: Transcript, name: str) -> str:
    """Formats NIST's time-marked words, sorted by start.

    A line holds recording, channel, start and duration in seconds, word, and confidence. The channel is always 1,
    because recordings are mixed down. White space inside a word becomes `_`, because it would end the word.

    Args:
        transcript: what was recognised.
        name: name of the recording; `ctm_name` replaces some of its characters.

    Source: NIST SCTK, sclite, input file formats: ctm.
    """
    rows = []
    for word in transcript.words:
        start, end = (round(1000 * time) for time in (word.start, word.end))
        rows.append((start, max(end - start, 1), re.sub(r"\s", "_", word.text), word.confidence))
    return "".join(
        f"{ctm_name(name)} 1 {start / 1000:.3f} {duration / 1000:.3f} {text} {confidence:.4f}\n"
        for start, duration, text, confidence in sorted(rows, key=lambda row: row[0])
    )


def ctm_name(name: str) -> str:
    """Makes a recording's name fit for CTM: `_` replaces white space and `;` (`;;` begins a comment)."""
    return re.sub(r"[\s;]", "_", name)


def render(transcript: Transcript, output_format: Format, name: str, utterance_id: str = "") -> str:
    """Writes a transcript in a format.

    Args:
        transcript: what was recognised.
        output_format: one of `Format`.
        name: name of the recording, which every line of CTM begins with.
        utterance_id: what a manifest calls the recording; "" without a manifest. JSON states it.
    """
    if output_format == "ctm":
        return to_ctm(transcript, name)
    if output_format == "json":
        return to_json(transcript, utterance_id)
    return _WRITERS[output_format](transcript)


_WRITERS: Mapping[str, Callable[[Transcript], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
}


def _cues(transcript: Transcript) -> list[Cue]:
    return make_cues([segment.readings[0].words for segment in transcript.segments], transcript.duration)


def _span(cue: Cue, decimal_mark: str) -> str:
    return f"{_timestamp(cue.start, decimal_mark)} --> {_timestamp(cue.end, decimal_mark)}"


def _timestamp(milliseconds: int, decimal_mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_mark}{milliseconds:03}"


def _cue_text(cue: Cue) -> str:
    return "\n".join(cue.lines)


class LiveWriter:
    """Writes the segments of a recording that goes on.

    Attributes:
        head: what comes before the first segment.
    """

    def __init__(self, output_format: LiveFormat) -> None:
        self._format = output_format
        self.head = "WEBVTT\n\n" if output_format == "vtt" else ""
        self._num_cues = 0
        self._held: Segment | None = None

    def segment(self, segment: Segment) -> str:
        """Returns what can be written after another segment has ended.

        Subtitles of a segment are written when the next one is known, because a cue may stay until it begins.
        """
        if self._format == "txt":
            return f"{segment.readings[0].text}\n"
        if self._format == "json":
            best = segment.readings[0]
            line = _json_segment(segment) | {"words": [_json_word(word) for word in best.words]}
            return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        held, self._held = self._held, segment
        return self._cues(held, segment.start) if held else ""

    def rest(self, seconds: float) -> str:
        """Returns what is left at the end of the recording, after so many seconds."""
        return self._cues(self._held, seconds) if self._held else ""

    def _cues(self, segment: Segment, end: float) -> str:
        text = ""
        for cue in make_cues([segment.readings[0].words], max(end, segment.end)):
            self._num_cues += 1
            if self._format == "srt":
                text += _srt_cue(self._num_cues, cue)
            else:
                text += _vtt_cue(cue)
        return text

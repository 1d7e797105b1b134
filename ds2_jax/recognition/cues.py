"""Divides recognised words into subtitle cues that a reader can follow.

The rules are those of professional subtitles:

* A cue has at most 2 lines of at most 42 characters: one line if the text fits, otherwise two of about equal length.
  Wide characters (Chinese, Japanese, Korean) count twice.
* A cue is shown for at most 7 s. If the next cue starts late enough, a cue is shown for at least 1 s, and long enough
  to read at 17 characters per second. To be readable, it may stay for up to 1.5 s after its last word.
* The gap between two cues is either 80 ms (2 frames at 25 frames per second) or at least 1 s, because other gaps
  flicker. If the gap would be shorter than 1 s, the first cue stays until 80 ms before the next one. If the
  first cue would then be shorter than 1 s and end before its last word does, there is no gap.
* Cues preferably end at pauses and at the ends of segments. A pause of 1 s or longer always ends a cue. No cue is shown
  before its first word is spoken.

No word is left out or changed. A word too long for a line, such as a whole sentence in a language without spaces, is
split between characters, and the parts get the characters' times. The characters keep the order of the transcript:
players handle scripts that run from right to left.

Source: Netflix, Timed Text Style Guide, General Requirements (lines, 7 s, gap) and English (42 characters, 17 per
second); BBC, Subtitle Guidelines (pauses, 1.5 s, gaps of at least 1 s).
"""

import itertools
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from ds2_jax.decoding.hypothesis import Character, Word

LINE_WIDTH = 42
MAX_LINES = 2
MIN_SECONDS = 1.0
MAX_SECONDS = 7.0
CHARACTERS_PER_SECOND = 17.0
# Seconds. The gap between two cues is GAP or at least SHORTEST_PAUSE, or 0 after a very short cue.
GAP = 0.08
SHORTEST_PAUSE = 1.0
LINGER = 1.5  # seconds that a cue may stay after its last word, to be readable
LONG_PAUSE = 1.0  # seconds; a pause of this length always ends a cue
GOOD_PAUSE = 0.5  # seconds; a pause of this length inside a cue costs as much as one more cue
SEGMENT_COST = 2.0  # the end of a segment inside a cue costs as much as this many cues


class Cue(NamedTuple):
    """The text that is shown at one time.

    Attributes:
        start: milliseconds from the start of the recording.
        end: milliseconds from the start of the recording. It is later than `start`, and not after the next cue's start.
        text: the whole text.
        lines: the text in one or two lines.
    """

    start: int
    end: int
    text: str
    lines: tuple[str, ...]


class _Piece(NamedTuple):
    """A word or part of a word, which stays on one line.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds from the start of the recording.
        width: columns of the text.
        space: 1 if a space precedes the piece, else 0.
        pause: seconds of silence after the piece.
        ends_segment: whether the piece is the last one of a segment.
    """

    text: str
    start: float
    end: float
    width: int
    space: int
    pause: float
    ends_segment: bool


def make_cues(segments: Sequence[Sequence[Word]], duration: float) -> list[Cue]:
    """Divides words into cues by the rules in the module's docstring.

    Args:
        segments: the words of each segment in order, with the times of their characters.
        duration: length of the recording in seconds; no cue ends later.

    Returns:
        The cues in order; none if there are no words.
    """
    pieces = _pieces(segments)
    cues: list[Cue] = []
    for first, last in itertools.pairwise(_best_bounds(pieces, duration)):
        shown = pieces[first:last]
        following = pieces[last].start if last < len(pieces) else duration
        end = _shown_until(shown[0].start, shown[-1].end, _width(shown), following, last == len(pieces))
        start_ms = max(round(1000 * shown[0].start), cues[-1].end if cues else 0)
        cues.append(Cue(start_ms, max(round(1000 * end), start_ms + 1), _text(shown), _lines(shown)))
    return cues


def _pieces(segments: Sequence[Sequence[Word]]) -> list[_Piece]:
    """Lists the words as pieces. Words too long for a line or a cue are split into characters."""
    parts: list[tuple[Character, int, bool]] = []
    for words in segments:
        for index, word in enumerate(words):
            ends_segment = index == len(words) - 1
            too_long = text_width(word.text) > LINE_WIDTH or word.end - word.start > MAX_SECONDS
            clusters = _clusters(word.characters) if too_long else [Character(word.text, word.start, word.end)]
            for number, cluster in enumerate(clusters):
                parts.append((cluster, int(number == 0), ends_segment and number == len(clusters) - 1))
    starts = [*(part.start for part, _, _ in parts), float("inf")]
    return [
        _Piece(*part, text_width(part.text), space, starts[i + 1] - part.end, ends_segment)
        for i, (part, space, ends_segment) in enumerate(parts)
    ]


def _clusters(characters: Sequence[Character]) -> list[Character]:
    """Joins each accent or vowel sign to the character before it."""
    clusters: list[Character] = []
    for each in characters:
        if clusters and unicodedata.category(each.text[0]) in ("Mn", "Mc", "Me", "Cf"):
            clusters[-1] = Character(clusters[-1].text + each.text, clusters[-1].start, each.end)
        else:
            clusters.append(each)
    return clusters


def text_width(text: str) -> int:
    """Counts the columns that a text takes: 2 for a wide character, 0 for a non-spacing or invisible one."""
    return sum(
        0 if unicodedata.category(each) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


def _width(pieces: Sequence[_Piece]) -> int:
    return sum(piece.width + piece.space for piece in pieces) - pieces[0].space


def _shown_until(start: float, last_end: float, width: int, following: float, is_last: bool) -> float:
    """Computes when a cue disappears, in seconds.

    Args:
        start: start of the cue, in seconds.
        last_end: end of its last word, in seconds.
        width: columns of its text.
        following: start of the next cue, or end of the recording after the last cue, in seconds.
        is_last: whether no cue follows.
    """
    readable = min(start + width / CHARACTERS_PER_SECOND, last_end + LINGER)
    end = max(last_end, start + MIN_SECONDS, readable)
    if not is_last:
        if following - end < SHORTEST_PAUSE:
            end = following
        with_gap = following - GAP
        following = with_gap if with_gap >= min(start + MIN_SECONDS, last_end) else following
    return min(end, following, start + MAX_SECONDS)


def _best_bounds(pieces: Sequence[_Piece], duration: float) -> list[int]:
    """Divides the pieces into cues at the lowest total cost, by dynamic programming from the end to the start.

    Returns:
        The index of each cue's first piece, then the number of pieces.
    """
    count = len(pieces)
    ends = [0, *itertools.accumulate(piece.width + piece.space for piece in pieces)]  # columns before each piece
    costs, nexts = [0.0] * (count + 1), [count] * (count + 1)
    for first in range(count - 1, -1, -1):
        best = float("inf")
        start, columns = pieces[first].start, ends[first] + pieces[first].space
        # second_line: the latest piece that can begin the second line.
        # inside: cost of the pauses and segment ends inside the cue.
        second_line, inside = None, 0.0
        for last in range(first + 1, count + 1):
            if second_line is None and ends[last] - columns > LINE_WIDTH:
                second_line = last - 1
            too_wide = second_line is not None and (
                ends[last] - ends[second_line] - pieces[second_line].space > LINE_WIDTH
            )
            piece = pieces[last - 1]
            if last > first + 1 and (too_wide or piece.end - start > MAX_SECONDS):
                break
            following = pieces[last].start if last < count else duration
            end = _shown_until(start, piece.end, ends[last] - columns, following, last == count)
            cost = inside + _cost(end - start, ends[last] - columns) + costs[last]
            if cost < best:
                best, nexts[first] = cost, last
            if piece.pause >= LONG_PAUSE:
                break
            inside += SEGMENT_COST if piece.ends_segment else max(0.0, piece.pause) / GOOD_PAUSE
        costs[first] = best
    bounds = [0]
    while bounds[-1] < count:
        bounds.append(nexts[bounds[-1]])
    return bounds


def _cost(seconds: float, width: int) -> float:
    """Computes the cost of a cue of `width` columns that is shown for `seconds`.

    A cue costs 1. Each second that it is too short adds 4. Each 10 characters per second above the limit add 2.
    """
    too_short = max(0.0, MIN_SECONDS - seconds)
    too_fast = max(0.0, width / max(seconds, 0.1) - CHARACTERS_PER_SECOND)
    return 1 + 4 * too_short + 0.2 * too_fast


def _lines(pieces: Sequence[_Piece]) -> tuple[str, ...]:
    """Divides a cue into one line or into two of about equal length. It breaks at a space if there is one.

    It prefers to break at a pause of 0.5 s or more, unless this makes the longer line more than 12 columns longer than
    the best other break would.
    """
    if _width(pieces) <= LINE_WIDTH or len(pieces) == 1:
        return (_text(pieces),)

    def ugliness(index: int) -> tuple[bool, bool, float, int]:
        top, bottom = _width(pieces[:index]), _width(pieces[index:])
        longer, pause = max(top, bottom), max(0.0, pieces[index - 1].pause) / GOOD_PAUSE
        # On a tie, the bottom line is the longer one.
        return longer > LINE_WIDTH, not pieces[index].space, longer - 12 * min(1.0, pause), top

    parting = min(range(1, len(pieces)), key=ugliness)
    return _text(pieces[:parting]), _text(pieces[parting:])


def _text(pieces: Sequence[_Piece]) -> str:
    return "".join(" " * piece.space + piece.text for piece in pieces).removeprefix(" ")

"""The result of recognising a recording: its segments, text and words."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ds2_jax.audio.timeline import Timeline
from ds2_jax.decoding.hypothesis import Hypothesis, Word


class Segment(NamedTuple):
    """A part of a recording that was decoded on its own.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds from the start of the recording.
        readings: one or more hypotheses, the best first, with times from the start of the recording.
    """

    start: float
    end: float
    readings: Sequence[Hypothesis]


class Transcript(NamedTuple):
    """What was recognised in a recording.

    Attributes:
        audio: the file, or the name of the recording.
        duration: length of the recording in seconds, as a player shows it; that of a video includes its picture.
        segments: the segments in order of time; a silent recording has none.
        sound_seconds: length of the sound in seconds, without the time before it and gaps in it.
    """

    audio: Path
    duration: float
    segments: Sequence[Segment]
    sound_seconds: float = 0.0

    @property
    def text(self) -> str:
        """The text of the best readings, joined by single spaces."""
        return " ".join(segment.readings[0].text for segment in self.segments if segment.readings[0].text)

    @property
    def words(self) -> list[Word]:
        """The words of the best readings, with times and confidences."""
        return list(itertools.chain.from_iterable(segment.readings[0].words for segment in self.segments))

    @property
    def confidence(self) -> float:
        """The probability, in [0, 1], that the least certain segment is right; 1 without segments."""
        return min((segment.readings[0].confidence for segment in self.segments), default=1.0)


def shifted(reading: Hypothesis, start: float, end: float) -> Hypothesis:
    """Moves the times of a reading `start` seconds later, and limits its end times to `end`.

    The last output frame may extend beyond the end of the audio.
    """

    def moved(each: Any) -> Any:
        return each._replace(start=each.start + start, end=min(each.end + start, end))

    words = (moved(word)._replace(characters=tuple(map(moved, word.characters))) for word in reading.words)
    return reading._replace(words=tuple(words))


def in_file(segment: Segment, timeline: Timeline) -> Segment:
    """Replaces times of the sound by those of the file."""

    def moved(word: Word) -> Word:
        start, end = timeline.span(word.start, word.end)
        shift = start - word.start
        characters = (each._replace(start=each.start + shift, end=each.end + shift) for each in word.characters)
        return word._replace(start=start, end=end, characters=tuple(characters))

    readings = [reading._replace(words=tuple(map(moved, reading.words))) for reading in segment.readings]
    return Segment(timeline.time(segment.start), timeline.end_time(segment.end), readings)

"""Transcripts for tests of output formats: words with times, including every odd case."""

from pathlib import Path

from hypothesis import strategies as st

from ds2_jax.decoding.hypothesis import Character, Hypothesis, Word
from ds2_jax.recognition.transcript import Segment, Transcript


def spoken_word(text: str, start: float, end: float, confidence: float = 0.9) -> Word:
    """Makes a word whose characters all take the same time."""
    step = (end - start) / len(text)
    characters = tuple(
        Character(each, start + i * step, end if i == len(text) - 1 else start + (i + 1) * step)
        for i, each in enumerate(text)
    )
    return Word(text, start, end, confidence, characters)


def reading(words: list[Word], score: float = -1.0) -> Hypothesis:
    """Makes a hypothesis of words with the confidence of the least certain one."""
    confidence = min((word.confidence for word in words), default=1.0)
    return Hypothesis(" ".join(word.text for word in words), tuple(words), confidence, score)


def evenly_spoken(text: str, seconds_a_word: float = 0.4, pause: float = 0.1, start: float = 0.0) -> list[Word]:
    """Makes the words of a text, one after another at an even pace."""
    step = seconds_a_word + pause
    return [
        spoken_word(each, start + i * step, start + i * step + seconds_a_word) for i, each in enumerate(text.split())
    ]


def transcript_of(*segments: list[Word], audio: str = "a.wav", duration: float | None = None) -> Transcript:
    """Makes a transcript with one reading per segment; by default it ends with the last word."""
    end = max((word.end for words in segments for word in words), default=1.0)
    parts = [
        Segment(words[0].start, words[-1].end, [reading(words)]) if words else Segment(0.0, end, [reading([])])
        for words in segments
    ]
    seconds = end if duration is None else duration
    return Transcript(Path(audio), seconds, parts, seconds)


LETTERS = "ABEIOTÜßا한語ไ้🎉&<>-\\'.0;́"
"""Narrow, wide and combining characters, and characters with a meaning in one of the formats."""


@st.composite
def transcripts(draw: st.DrawFn, least_time: float = 0.0) -> Transcript:
    """Draws any transcript that a decoder could give: words in order, at least `least_time` seconds per character."""
    time, segments = 0.0, []
    for _ in range(draw(st.integers(0, 3))):
        words = []
        for _ in range(draw(st.integers(0, 8))):
            length = draw(st.sampled_from([1, 2, 3, 5, 8, 12, 20, 43, 100]))
            offset = draw(st.integers(0, len(LETTERS) - 1))
            text = (LETTERS * 6)[offset : offset + length]
            start = time + draw(st.sampled_from([0.0, 0.02, 0.04, 0.1, 0.3, 0.7, 1.2, 3.0]))
            time = start + len(text) * (least_time + draw(st.sampled_from([0.0, 0.02, 0.05, 0.2, 1.0])))
            words.append(spoken_word(text, start, time, draw(st.floats(0, 1))))
        segments.append(words)
    return transcript_of(*segments, duration=time + draw(st.sampled_from([0.0, 0.5, 4.0])))

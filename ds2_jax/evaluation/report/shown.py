"""What the page shows of an utterance."""

from collections.abc import Sequence
from typing import NamedTuple

from ds2_jax.evaluation.error_rates import ErrorCount, char_errors
from ds2_jax.evaluation.report.timeline import Timeline
from ds2_jax.evaluation.results import Result
from ds2_jax.evaluation.word_alignment import WordPair, align_words


class ShownUtterance(NamedTuple):
    """An utterance on the page.

    Attributes:
        result: the utterance and what was recognised.
        characters: character errors, without spaces.
        seconds: duration of the whole recording; 0 if it is not known.
        pairs: the words of the reference, aligned with the recognised words.
        timeline: the timeline to draw; None without a recording.
        audio: address of the sound; "" without a recording.
        notes: notes for the reader.
    """

    result: Result
    characters: ErrorCount
    seconds: float
    pairs: Sequence[WordPair]
    timeline: Timeline | None = None
    audio: str = ""
    notes: Sequence[str] = ()


def without_sound(result: Result) -> ShownUtterance:
    """Prepares an utterance of which only the texts are known."""
    characters = char_errors(result.reference, result.hypothesis, spaces=False)
    pairs = align_words(result.reference, result.hypothesis, result.weights)
    return ShownUtterance(result, characters, result.utterance.duration, pairs)

"""Lays out an utterance for `templates/timeline.html`: its spectrogram, the letters of each frame, and its words."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.text.alphabet import Alphabet

LEAST_SHOWN = 0.1
"""A label that the model does not write is shown from this probability on."""
PIXELS_PER_FRAME = 7.5
"""Width of an output frame at which neighbouring letters stay apart."""
FEWEST_PIXELS = 110
"""Smallest width of a second."""
MOST_PIXELS = 260
"""Largest width of a second."""
WORD_PIXELS = 20
"""Width of a word without its letters."""
LETTER_PIXELS = 9
"""Width of a letter of a word."""
SPACE = "␣"


@dataclasses.dataclass(frozen=True)
class Axis:
    """The time axis that all rows of a timeline share.

    Attributes:
        seconds: length of the axis.
        seconds_per_frame: duration of an output frame.
        window_stride: seconds between spectrogram frames.
    """

    seconds: float
    seconds_per_frame: float
    window_stride: float

    def at(self, seconds: float) -> str:
        """Formats a time or a duration as a percentage of the axis, for CSS and SVG."""
        return f"{100 * seconds / self.seconds:.3f}%"

    @property
    def pixels(self) -> int:
        """The least width in pixels at which the letters can be read."""
        return round(self.seconds * min(max(PIXELS_PER_FRAME / self.seconds_per_frame, FEWEST_PIXELS), MOST_PIXELS))

    @property
    def ticks(self) -> list[float]:
        """The times to label, in seconds: at most 12, unless the axis is longer than two minutes."""
        step = next(step for step in (0.25, 0.5, 1, 2, 5, 10) if self.seconds / step <= 12 or step == 10)
        return [index * step for index in range(math.ceil(self.seconds / step))]


class Bar(NamedTuple):
    """The probability of a label in an output frame; `title` lists the most probable labels of the frame."""

    frame: int
    probability: float
    title: str


class Letter(NamedTuple):
    """A label in consecutive output frames.

    Attributes:
        text: the label's text, with "␣" for a space.
        written: whether the model writes the label, so that its bars stand above the line. Otherwise it is the most
            probable label that the model does not write, and its bars hang below.
        shade: additional CSS class of the bars: " gap" for a space, "" and " odd" in turn for other characters.
        bars: one for each frame.
    """

    text: str
    written: bool
    shade: str
    bars: Sequence[Bar]

    @property
    def peak(self) -> Bar:
        """The tallest bar; ties go to the first."""
        return max(self.bars, key=lambda bar: bar.probability)


class Letters(NamedTuple):
    """All letters of an utterance, and a description of the written ones for a screen reader."""

    letters: Sequence[Letter]
    spoken: str


class Row:
    """A row of words over time.

    Args:
        axis: the time axis.
        title: the title of the row.
        words: the words in order.
        kinds: the kind of edit of each word.

    Attributes:
        placed: each word with its kind and the index of its line.
        num_lines: the number of lines, at least 1.
    """

    def __init__(self, axis: Axis, title: str, words: Sequence[Word], kinds: Sequence[str]) -> None:
        self.title = title
        lines = _lines(axis, words)
        self.placed = list(zip(words, kinds, lines, strict=True))
        self.num_lines = 1 + max(lines, default=0)


class Timeline(NamedTuple):
    """A timeline to draw.

    Attributes:
        axis: the time axis.
        spectrogram: address of the picture.
        num_frames: number of frames in the spectrogram.
        kilohertz: frequencies in the middle and at the top of the spectrogram.
        letters: the letters of the output frames.
        rows: rows of words; the last row holds the recognised words, from which the reader can play.
    """

    axis: Axis
    spectrogram: str
    num_frames: int
    kilohertz: tuple[str, str]
    letters: Letters
    rows: Sequence[Row]


def find_letters(axis: Axis, log_probs: np.ndarray, alphabet: Alphabet) -> Letters:
    """Finds the label that the model writes in each frame, and the most probable one that it does not write.

    Args:
        axis: the time axis.
        log_probs: [T', V] float32, natural logarithms.
        alphabet: the model's alphabet.
    """
    probs = np.exp(log_probs)
    probs[:, Alphabet.blank_index] = 0
    spans = greedy_decode(log_probs)
    written = np.zeros(len(log_probs), np.int64)
    for label, first, last in spans:
        written[first : last + 1] = label
    others = probs.copy()
    np.put_along_axis(others, written[:, None], 0, axis=1)
    second = np.where(others.max(1) >= LEAST_SHOWN, others.argmax(1), Alphabet.blank_index)
    titles = [_likeliest(frame, axis, row, alphabet) for frame, row in enumerate(log_probs)]
    letters = [
        *_runs(written, probs, titles, alphabet, written=True),
        *_runs(second, probs, titles, alphabet, written=False),
    ]
    times = (f"{_text(alphabet, label)} at {first * axis.seconds_per_frame:.2f} s" for label, first, _ in spans)
    return Letters(letters, ", ".join(times))


def _runs(
    labels: np.ndarray, probs: np.ndarray, titles: Sequence[str], alphabet: Alphabet, *, written: bool
) -> Iterator[Letter]:
    """Yields a letter for each run of frames with the same label, except blank."""
    shades = itertools.cycle(("", " odd"))
    for label, frames in itertools.groupby(range(len(labels)), key=lambda frame: int(labels[frame])):
        if label != Alphabet.blank_index:
            text = _text(alphabet, label)
            shade = " gap" if text == SPACE else next(shades)
            bars = [Bar(frame, float(probs[frame, label]), titles[frame]) for frame in frames]
            yield Letter(text, written, shade, bars)


def _likeliest(frame: int, axis: Axis, log_probs: np.ndarray, alphabet: Alphabet) -> str:
    best = np.argsort(-log_probs, kind="stable")[:4].tolist()
    listed = ", ".join(f"{_text(alphabet, label)} {math.exp(log_probs[label]):.1%}" for label in best)
    return f"{frame * axis.seconds_per_frame:.2f} s: {listed}"


def _text(alphabet: Alphabet, label: int) -> str:
    if label == Alphabet.blank_index:
        return "blank"
    return alphabet.decode([label]).replace(" ", SPACE)


def _lines(axis: Axis, words: Sequence[Word]) -> list[int]:
    """Distributes words over lines, so that none covers another at the least width of the timeline."""
    ends: list[float] = []  # of each line, in pixels
    lines = []
    for word in words:
        start, end = (time / axis.seconds * axis.pixels for time in (word.start, word.end))
        line = next((line for line, taken in enumerate(ends) if taken <= start), len(ends))
        ends[line : line + 1] = [max(end, start + WORD_PIXELS + LETTER_PIXELS * len(word.text))]
        lines.append(line)
    return lines

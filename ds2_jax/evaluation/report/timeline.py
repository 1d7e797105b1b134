"""An utterance over time: its spectrogram, what the model writes in each frame, and the words, on one axis."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.evaluation.report.breakdown import WordPair
from ds2_jax.evaluation.report.markup import text, words
from ds2_jax.evaluation.report.pictures import data_uri, spectrogram_png
from ds2_jax.text.alphabet import Alphabet

LEAST_SHOWN = 0.1
"""Probability from which a label that is not written is shown."""
PIXELS_PER_FRAME, FEWEST_PIXELS, MOST_PIXELS = 7.5, 110, 260
"""Width of an output frame, that letters of neighbouring frames do not cover each other; and of a second."""
UP, DOWN, BASELINE, HEIGHT = 40, 34, 58, 110
"""Pixels: the tallest bar above and below the line, where the line lies, and the height of it all."""
LEVEL, WORD_PIXELS, LETTER_PIXELS = 30, 20, 9
"""Pixels: from one line of words to the next, and the width of a word without its letters and of a letter."""
SPACE = "␣"
MARKS = {"substitution": "S", "deletion": "D", "insertion": "I", "right": ""}


@dataclasses.dataclass(frozen=True)
class Axis:
    """What all rows of a timeline share.

    Attributes:
        seconds: its length.
        seconds_per_frame: duration of an output frame.
        window_stride: seconds between spectrogram frames.
        frequencies: Hz in the middle and at the top of the spectrogram.
    """

    seconds: float
    seconds_per_frame: float
    window_stride: float
    frequencies: tuple[float, float]

    def at(self, seconds: float) -> str:
        """A time or a duration as a share of the axis, for CSS and SVG."""
        return f"{100 * seconds / self.seconds:.3f}%"

    @property
    def pixels(self) -> int:
        """Least width at which the letters can be read."""
        return round(self.seconds * min(max(PIXELS_PER_FRAME / self.seconds_per_frame, FEWEST_PIXELS), MOST_PIXELS))


class Row(NamedTuple):
    """Words in their places; of each its kind of edit, in their order."""

    title: str
    words: Sequence[Word]
    kinds: Sequence[str]


def timeline(
    axis: Axis, spectrogram: np.ndarray, log_probs: np.ndarray, alphabet: Alphabet, rows: Sequence[Row]
) -> str:
    """Draws an utterance.

    Args:
        axis: of time.
        spectrogram: [T, F] float32, normalised.
        log_probs: [T', V] float32.
        alphabet: what the labels stand for.
        rows: of words; the last one is what was recognised, whose words can be heard.
    """
    stride, frames = axis.window_stride, len(spectrogram)
    place = f"left:{axis.at(-stride / 2)};width:{axis.at(frames * stride)}"  # a frame is centred at its time
    image = data_uri("image/png", spectrogram_png(spectrogram))
    middle, top = (f"{frequency / 1000:.3g}" for frequency in axis.frequencies)
    alt = f"Spectrogram, {axis.seconds:.2f} seconds, 0 to {top} kHz"
    drawn = "".join(_row(axis, row, heard=row is rows[-1]) for row in rows)
    return (
        '<div class="scroller" role="region" tabindex="0" aria-label="Sound, letters and words over time">\n'
        f'<div class="timeline" data-seconds="{axis.seconds:.6f}" style="min-width:{axis.pixels}px">\n'
        f'<div class="spectrogram"><img alt="{alt}" src="{image}" style="{place}">'
        f'<div class="frequencies" aria-hidden="true"><span>{top} kHz</span>'
        f"<span>{middle}</span><span>0</span></div></div>\n"
        f"{_ticks(axis)}\n{letters(axis, log_probs, alphabet)}\n{drawn}\n"
        '<div class="cursor" aria-hidden="true"></div>\n</div>\n</div>'
    )


def _ticks(axis: Axis) -> str:
    step = next(step for step in (0.25, 0.5, 1, 2, 5, 10) if axis.seconds / step <= 12 or step == 10)
    times = [index * step for index in range(math.ceil(axis.seconds / step))]
    return '<div class="ticks" aria-hidden="true">' + (
        "".join(f'<span style="left:{axis.at(time)}">{time:g} s</span>' for time in times) + "</div>"
    )


def letters(axis: Axis, log_probs: np.ndarray, alphabet: Alphabet) -> str:
    """Bars of probability: above the line the label that is written in a frame, below it the likeliest that is not."""
    probs = np.exp(log_probs)
    probs[:, Alphabet.blank_index] = 0
    spans = greedy_decode(log_probs)
    written = np.zeros(len(log_probs), np.int64)
    for label, first, last in spans:
        written[first : last + 1] = label
    others = probs.copy()
    np.put_along_axis(others, written[:, None], 0, axis=1)
    second = np.where(others.max(1) >= LEAST_SHOWN, others.argmax(1), Alphabet.blank_index)
    said = ", ".join(
        f"{_letter(alphabet, span.label)} at {span.first_frame * axis.seconds_per_frame:.2f} s" for span in spans
    )
    marks = [*_bars(axis, written, probs, log_probs, alphabet, up=True)]
    marks += _bars(axis, second, probs, log_probs, alphabet, up=False)
    return (
        f'<svg class="letters" width="100%" height="{HEIGHT}" role="img" aria-label="Letters written: {text(said)}">\n'
        f'<line x1="0" x2="100%" y1="{BASELINE}" y2="{BASELINE}"/>\n' + "\n".join(marks) + "\n</svg>"
    )


def _bars(
    axis: Axis, labels: np.ndarray, probs: np.ndarray, log_probs: np.ndarray, alphabet: Alphabet, *, up: bool
) -> Iterator[str]:
    """A bar for each frame with a label, and the letter once for frames in a row, at the tallest."""
    side, step = ("written", -1) if up else ("considered", 1)
    shades = itertools.cycle(("", " odd"))
    tallest = UP if up else DOWN
    for label, run in itertools.groupby(range(len(labels)), key=lambda frame: labels[frame]):
        if label == Alphabet.blank_index:
            continue
        frames, character = list(run), alphabet.decode([int(label)])
        kind = side + (" gap" if character == " " else next(shades))
        peak = max(frames, key=lambda frame: probs[frame, label])
        for frame in frames:
            height = float(probs[frame, label]) * tallest
            top = BASELINE - height if up else BASELINE
            yield (
                f'<rect class="{kind}" x="{axis.at(frame * axis.seconds_per_frame)}" y="{top:.1f}" '
                f'width="{axis.at(axis.seconds_per_frame)}" height="{height:.1f}">'
                f"<title>{text(_likeliest(frame, axis, log_probs, alphabet))}</title></rect>"
            )
        end = BASELINE + step * float(probs[peak, label]) * tallest
        yield (
            f'<text class="{side}" x="{axis.at((peak + 0.5) * axis.seconds_per_frame)}" '
            f'y="{end - 4 if up else end + 11:.1f}">{text(_letter(alphabet, int(label)))}</text>'
        )


def _likeliest(frame: int, axis: Axis, log_probs: np.ndarray, alphabet: Alphabet) -> str:
    best = np.argsort(-log_probs[frame], kind="stable")[:4]
    listed = ", ".join(f"{_letter(alphabet, int(label))} {math.exp(log_probs[frame, label]):.1%}" for label in best)
    return f"{frame * axis.seconds_per_frame:.2f} s: {listed}"


def _letter(alphabet: Alphabet, label: int) -> str:
    if label == Alphabet.blank_index:
        return "blank"
    return alphabet.decode([label]).replace(" ", SPACE)


def _row(axis: Axis, row: Row, *, heard: bool) -> str:
    """A row of words; those that were recognised are buttons that play them."""
    placed = []
    levels = _levels(axis, row.words)
    for word, kind, level in zip(row.words, row.kinds, levels, strict=True):
        mark = f'<sup aria-hidden="true">{MARKS[kind]}</sup>' if MARKS[kind] else ""
        place = f"left:{axis.at(word.start)};min-width:{axis.at(word.end - word.start)};top:{level * LEVEL}px"
        times = f"{word.start:.2f} to {word.end:.2f} s"
        if heard:
            said = text(f"{word.text}, {kind}, {times}, confidence {word.confidence:.0%}. Play it")
            placed.append(
                f'<button type="button" class="{kind}" style="{place}" data-start="{word.start:.3f}" '
                f'data-end="{word.end:.3f}" title="{said}" aria-label="{said}">{mark}{words(word.text)}</button>'
            )
        else:
            placed.append(f'<span class="{kind}" style="{place}" title="{times}">{mark}{words(word.text)}</span>')
    height = LEVEL * (1 + max(levels, default=0))
    return (
        f'<div class="row-title">{text(row.title)}</div>'
        f'<div class="row" style="height:{height}px">{"".join(placed)}</div>'
    )


def _levels(axis: Axis, row: Sequence[Word]) -> list[int]:
    """On which line each word stands, so that none covers another where the timeline is at its narrowest."""
    ends: list[float] = []  # of each line, pixels
    levels = []
    for word in row:
        start, end = (time / axis.seconds * axis.pixels for time in (word.start, word.end))
        level = next((level for level, taken in enumerate(ends) if taken <= start), len(ends))
        ends[level : level + 1] = [max(end, start + WORD_PIXELS + LETTER_PIXELS * len(word.text))]
        levels.append(level)
    return levels


def difference(pairs: Sequence[WordPair]) -> str:
    """Reference above hypothesis, word by word; errors are marked S, D and I beside their colours."""
    items = []
    for pair in pairs:
        said = words(pair.reference) if pair.reference else '<span class="none" aria-hidden="true">–</span>'
        heard = words(pair.hypothesis) if pair.hypothesis else '<span class="none" aria-hidden="true">–</span>'
        if pair.kind == "right":
            items.append(f'<li class="right"><span>{said}</span><span aria-hidden="true">{heard}</span></li>')
            continue
        said = f"<del>{said}</del>" if pair.reference else said
        heard = f"<ins>{heard}</ins>" if pair.hypothesis else heard
        items.append(
            f'<li class="{pair.kind}"><span>{said}</span><span>{heard}</span>'
            f'<abbr title="{pair.kind}">{MARKS[pair.kind]}</abbr></li>'
        )
    return f'<ol class="difference" aria-label="Reference above, what was recognised below">{"".join(items)}</ol>'

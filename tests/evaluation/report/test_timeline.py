"""The layout of timelines, and the choice of the utterances."""

import html
import re
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.data.manifest import Utterance
from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.evaluation.report.page import environment
from ds2_jax.evaluation.report.timeline import Axis, Row, Timeline, find_letters
from ds2_jax.evaluation.report.worst import Worst
from ds2_jax.evaluation.results import Result
from ds2_jax.evaluation.word_alignment import WordPair
from ds2_jax.text.alphabet import Alphabet

ALPHABET = Alphabet("AB ")
AXIS = Axis(seconds=0.2, seconds_per_frame=0.02, window_stride=0.01)


def planted(*frames: dict[str, float]) -> np.ndarray:
    """Makes log-probabilities [T', V] float32; blank gets the remaining probability of each frame."""
    log_probs = np.full((len(frames), ALPHABET.size), 1e-9)
    for row, frame in zip(log_probs, frames, strict=True):
        for character, prob in frame.items():
            row[ALPHABET.characters.index(character) + 1] = prob
        row[0] = 1 - sum(frame.values())
    return np.log(log_probs).astype(np.float32)


FRAMES = planted(
    {}, {"A": 0.9}, {"A": 0.6, "B": 0.35}, {}, {" ": 0.8}, {"B": 0.2}, {"B": 0.05}, {}, {}, {"B": 0.5 + 1e-6}
)


def draw(macro: str, *args: object) -> str:
    """Renders a macro of the template."""
    return str(getattr(environment().get_template("timeline.html").module, macro)(*args))


def letters(axis: Axis, log_probs: np.ndarray, alphabet: Alphabet) -> str:
    return draw("letters", axis, find_letters(axis, log_probs, alphabet))


def timeline(axis: Axis, num_frames: int, rows: list[Row]) -> str:
    letters = find_letters(axis, FRAMES, ALPHABET)
    return draw("timeline", Timeline(axis, "data:,", num_frames, ("4", "8"), letters, rows))


def marks(drawn: str, tag: str) -> list[tuple[str, float, str]]:
    """Finds class, position in per cent and content of every `tag`."""
    found = re.findall(rf'<{tag} class="([a-z ]+)" x="([\d.]+)%"[^>]*>(.*?)</{tag}>', drawn)
    return [(kind, float(x), html.unescape(content)) for kind, x, content in found]


def test_letters_stand_over_their_frames_and_what_was_considered_below() -> None:
    drawn = letters(AXIS, FRAMES, ALPHABET)
    assert marks(drawn, "text") == [
        ("written", 15, "A"),  # the middle of frame 1, the more probable one
        ("written", 45, "␣"),
        ("written", 95, "B"),
        ("considered", 25, "B"),
        ("considered", 55, "B"),
    ]
    bars = [(kind, x) for kind, x, _ in marks(drawn, "rect")]
    assert bars == [
        *[("written", 10), ("written", 20), ("written gap", 40), ("written odd", 90)],
        *[("considered", 20), ("considered odd", 50)],
    ]
    assert marks(drawn, "rect")[1][2] == "<title>0.04 s: A 60.0%, B 35.0%, blank 5.0%, ␣ 0.0%</title>"
    assert 'aria-label="Letters written: A at 0.02 s, ␣ at 0.08 s, B at 0.18 s"' in drawn


def test_bars_are_as_tall_as_the_probability() -> None:
    drawn = letters(AXIS, FRAMES, ALPHABET)
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', drawn)]
    assert heights == pytest.approx([0.9 * 40, 0.6 * 40, 0.8 * 40, 0.5 * 40, 0.35 * 34, 0.2 * 34], abs=0.06)


def test_picture_letters_and_words_share_one_axis() -> None:
    words = [Word("A", 0.02, 0.06, 0.9, ()), Word("B", 0.18, 0.2, 0.5, ())]
    rows = [Row(AXIS, "Reference", words[:1], ["right"]), Row(AXIS, "Recognised", words, ["right", "insertion"])]
    drawn = timeline(AXIS, 21, rows)
    assert "left:-2.500%;width:105.000%" in drawn  # 21 frames of 10 ms; the first is centred at 0
    assert drawn.count("left:10.000%;min-width:20.000%;top:0px") == 2
    button = re.findall(r'<button type="button" class="insertion" style="([^"]*)" data-start="([\d.]+)"', drawn)
    assert button == [("left:90.000%;min-width:10.000%;top:0px", "0.180")]
    assert 'aria-label="B, insertion, 0.18 to 0.20 s, confidence 50%. Play from here"' in drawn
    assert '<span style="left:75.000%">0.15 s</span>' not in drawn  # steps are at least 0.25 s
    assert drawn.count("<button") == 2


def test_words_that_would_cover_each_other_stand_on_lines_of_their_own() -> None:
    words = [Word("LONGWORD", 0.0, 0.1, 0.9, ()), Word("A", 0.12, 0.14, 0.9, ()), Word("B", 5.0, 5.1, 0.9, ())]
    axis = Axis(seconds=6.0, seconds_per_frame=0.04, window_stride=0.01)
    drawn = timeline(axis, 601, [Row(axis, "Recognised", words, ["right"] * 3)])
    assert re.findall(r"top:(\d+)px", drawn) == ["0", "30", "0"]
    assert 'class="row" style="height:60px"' in drawn


def test_difference_marks_errors_with_letters() -> None:
    pairs = [WordPair("A", "A"), WordPair("A", "B"), WordPair("A", ""), WordPair("", "<B>")]
    drawn = draw("difference", pairs)
    assert re.findall(r'<li class="(\w+)">', drawn) == ["right", "substitution", "deletion", "insertion"]
    assert re.findall(r'<abbr title="\w+">(.)</abbr>', drawn) == ["S", "D", "I"]
    assert (drawn.count("<del>"), drawn.count("<ins>")) == (2, 2)
    assert '<ins><bdi class="words">&lt;B&gt;</bdi></ins>' in drawn


def test_worst_have_most_word_errors_then_character_errors_then_least_confidence() -> None:
    def told(name: str, hypothesis: str, confidence: float) -> Result:
        reading = Hypothesis(hypothesis, (), confidence, 0.0)
        return Result(Utterance(Path("a.wav"), 1.0, "GO ON", name), "GO ON", hypothesis, [reading])

    batch = np.zeros((5, 9, 3), np.float32)
    worst = Worst(4)
    for row, result in enumerate(
        [
            told("right", "GO ON", 0.9),
            told("two", "UP", 0.9),
            told("far", "GO WRONG", 0.9),
            told("sure", "GO IN", 0.9),
            told("unsure", "GO IN", 0.2),
        ]
    ):
        worst(result, batch[row])
    assert [example.result.utterance.id for example in worst.examples] == ["two", "far", "unsure", "sure"]
    assert all(example.log_probs.base is None for example in worst.examples)  # no reference to the batch is left

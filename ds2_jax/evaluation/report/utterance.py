"""One of the worst utterances on the page: what was said and recognised, seen and heard."""

import math
from collections.abc import Callable

import numpy as np

from ds2_jax.audio.reading import read_audio
from ds2_jax.config import Config
from ds2_jax.config.frames import frequencies
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.evaluation.error_rates import char_errors
from ds2_jax.evaluation.report.breakdown import align_words
from ds2_jax.evaluation.report.markup import percent, text, words
from ds2_jax.evaluation.report.pictures import data_uri, sound, spectrogram_maker
from ds2_jax.evaluation.report.timeline import Axis, Row, difference, timeline
from ds2_jax.evaluation.report.worst import Example
from ds2_jax.evaluation.results import Result
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

MOST_SECONDS = 30.0
"""Of a recording, that are drawn and can be heard: more would make the page too large to open quickly."""
SHOWN_READINGS = 5


class Articles:
    """Writes the utterances of a run.

    Args:
        config: of the run.
        decoder: that was used; it times the words of references as those of hypotheses.
    """

    def __init__(self, config: Config, decoder: Decoder) -> None:
        self._config, self._decoder = config, decoder
        self._alphabet = Alphabet.of(config.data)
        self._spectrogram: Callable[[np.ndarray], np.ndarray] = spectrogram_maker(config.features)

    def __call__(self, rank: int, example: Example) -> str:
        """Writes an utterance.

        Args:
            rank: its place among the worst, from 1.
            example: the utterance and what the model gave for it.

        Raises:
            InputError: its audio cannot be read.
        """
        result, log_probs = example
        features = self._config.features
        waveform = _waveform(result, features.sample_rate)
        seconds = len(waveform) / features.sample_rate
        shown = waveform[: round(MOST_SECONDS * features.sample_rate)]
        axis = Axis(
            len(shown) / features.sample_rate,
            self._config.seconds_per_frame,
            features.window_stride,
            tuple(frequencies(np.array([0.5, 1.0]), features).tolist()),
        )
        frames = log_probs[: math.ceil(axis.seconds / axis.seconds_per_frame)]
        rows, note = self._rows(example, axis.seconds)
        notes = [note] if note else []
        if seconds > axis.seconds:
            notes.append(f"The first {axis.seconds:g} of {seconds:.1f} seconds are shown.")
        picture = timeline(axis, self._spectrogram(shown), frames, self._alphabet, rows)
        audio = data_uri("audio/wav", sound(shown, features.sample_rate))
        name = text(result.utterance.id)
        pairs = align_words(result.reference, result.hypothesis)
        return (
            f'<article id="utterance-{rank}" class="utterance" aria-labelledby="utterance-{rank}-title">\n'
            f'<h3 id="utterance-{rank}-title"><span class="rank">{rank}</span> {words(result.utterance.id)}</h3>\n'
            f'<p class="facts">{_facts(result, seconds)}</p>\n{difference(pairs)}\n{picture}\n'
            f'<audio controls preload="metadata" aria-label="Recording {name}" src="{audio}"></audio>\n'
            + "".join(f'<p class="note">{text(each)}</p>\n' for each in notes)
            + _readings(result)
            + "</article>"
        )

    def _rows(self, example: Example, seconds: float) -> tuple[list[Row], str]:
        """The words of the reference and of the hypothesis in their places; a note where the former have none."""
        from ds2_jax.decoding.alignment import align  # Numba, which an evaluation without a report need not load

        result, log_probs = example
        pairs = align_words(result.reference, result.hypothesis)
        rows, note = [], ""
        try:
            spans = align(log_probs, self._alphabet.encode(result.reference))
        except InputError as error:
            note = f"The reference has no place in time: {error}"
        else:
            aligned = self._decoder.hypothesis(spans, log_probs)
            kinds = [pair.kind for pair in pairs if pair.reference]
            rows.append(_row("Reference", aligned, kinds, seconds))
        kinds = [pair.kind for pair in pairs if pair.hypothesis]
        return [*rows, _row("Recognised", result.readings[0], kinds, seconds)], note


def _row(title: str, reading: Hypothesis, kinds: list[str], seconds: float) -> Row:
    """Those of the words that begin in what is shown; none reaches past it."""
    shown = [word._replace(end=min(word.end, seconds)) for word in reading.words if word.start < seconds]
    return Row(title, shown, kinds[: len(shown)])


def _waveform(result: Result, sample_rate: int) -> np.ndarray:
    utterance = result.utterance
    return utterance.record.read(sample_rate) if utterance.record else read_audio(utterance.audio, sample_rate)


def _facts(result: Result, seconds: float) -> str:
    characters = char_errors(result.reference, result.hypothesis, spaces=False)
    facts = [
        f"<b>{result.words.edits} word errors in {result.words.reference_length} words</b>",
        f"CER {percent(characters.rate)}",
        f"confidence {result.readings[0].confidence:.1%}".replace("%", " %"),
        f"{seconds:.2f} s",
    ]
    if result.utterance.speaker:
        facts.append(f"speaker {words(result.utterance.speaker)}")
    return ' <span aria-hidden="true">·</span> '.join(
        [*facts, f'<span class="path">{text(result.utterance.audio)}</span>']
    )


def _readings(result: Result) -> str:
    """The other readings of the decoder, where there are some."""
    if len(result.readings) < 2:
        return ""
    items = "".join(
        f"<li>{words(reading.text or '(nothing)')} <small>score {reading.score:.2f}</small></li>"
        for reading in result.readings[:SHOWN_READINGS]
    )
    title = f"The {min(len(result.readings), SHOWN_READINGS)} best readings"
    return f"<details><summary>{title}</summary><ol>{items}</ol></details>\n"

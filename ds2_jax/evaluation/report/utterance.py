"""Prepares an utterance for `templates/utterance.html`: its words, timeline and sound."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ds2_jax.config import Config
from ds2_jax.config.mel_bands import frequencies
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.evaluation.error_rates import char_errors
from ds2_jax.evaluation.report.pictures import data_uri, sound, spectrogram_maker, spectrogram_png
from ds2_jax.evaluation.report.shown import ShownUtterance
from ds2_jax.evaluation.report.timeline import Axis, Row, Timeline, find_letters
from ds2_jax.evaluation.report.worst import Example
from ds2_jax.evaluation.word_alignment import WordPair, align_words
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

MOST_SECONDS = 30.0
"""Seconds of a recording that the page shows and plays; with more, the page would open slowly."""


class Illustrator:
    """Prepares utterances of a run for the page.

    Args:
        config: the run's configuration.
        decoder: the decoder of the evaluation, which also computes the word times of references.
    """

    def __init__(self, config: Config, decoder: Decoder) -> None:
        self._config, self._decoder = config, decoder
        self._alphabet = Alphabet.of(config.data)
        self._spectrogram: Callable[[np.ndarray], np.ndarray] = spectrogram_maker(config.features)

    def __call__(self, example: Example) -> ShownUtterance:
        """Reads the audio of an utterance and prepares it for the page.

        Raises:
            InputError: the audio cannot be read.
        """
        result = example.result
        sample_rate = self._config.features.sample_rate
        waveform = result.utterance.read(sample_rate)
        seconds = len(waveform) / sample_rate
        shown = waveform[: round(MOST_SECONDS * sample_rate)]
        axis = Axis(len(shown) / sample_rate, self._config.seconds_per_frame, self._config.features.window_stride)
        pairs = align_words(result.reference, result.hypothesis)
        rows, notes = self._rows(axis, example, pairs)
        if seconds > axis.seconds:
            notes.append(f"The first {axis.seconds:g} of {seconds:.1f} seconds are shown.")
        return ShownUtterance(
            result,
            char_errors(result.reference, result.hypothesis, spaces=False),
            seconds,
            pairs,
            self._timeline(axis, shown, example.log_probs, rows),
            data_uri("audio/wav", sound(shown, sample_rate)),
            notes,
        )

    def _timeline(self, axis: Axis, waveform: np.ndarray, log_probs: np.ndarray, rows: Sequence[Row]) -> Timeline:
        spectrogram = self._spectrogram(waveform)
        image = data_uri("image/png", spectrogram_png(spectrogram))
        middle, top = (f"{hertz / 1000:.3g}" for hertz in frequencies(np.array([0.5, 1.0]), self._config.features))
        frames = log_probs[: math.ceil(axis.seconds / axis.seconds_per_frame)]
        return Timeline(axis, image, len(spectrogram), (middle, top), find_letters(axis, frames, self._alphabet), rows)

    def _rows(self, axis: Axis, example: Example, pairs: Sequence[WordPair]) -> tuple[list[Row], list[str]]:
        """Makes the rows of reference and hypothesis; without an alignment, a note replaces the reference's row."""
        from ds2_jax.decoding.alignment import align_labels  # loads Numba, which only reports need

        result, log_probs = example
        said, heard = ([pair.kind for pair in pairs if pair[side]] for side in (0, 1))
        recognised = _row(axis, "Recognised", result.readings[0], heard)
        try:
            spans = align_labels(log_probs, self._alphabet.encode(result.reference))
        except InputError as error:
            return [recognised], [f"The reference cannot be aligned: {error}"]
        return [_row(axis, "Reference", self._decoder.hypothesis(spans, log_probs), said), recognised], []


def _row(axis: Axis, title: str, reading: Hypothesis, kinds: list[str]) -> Row:
    """Makes a row of the words that begin inside the axis, cut at its end."""
    shown = [word._replace(end=min(word.end, axis.seconds)) for word in reading.words if word.start < axis.seconds]
    return Row(axis, title, shown, kinds[: len(shown)])

"""Decodes an utterance's log-probabilities to hypotheses, for evaluation and transcription alike."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Hypothesis, LabelSpan, make_hypothesis
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.decoding.stream import StreamDecoder
from ds2_jax.text.alphabet import Alphabet

if TYPE_CHECKING:  # it imports Numba, which loads slowly
    from ds2_jax.decoding.beam.search import BeamSearch, PartialSearch


class Decoder:
    """Decodes utterances, each as a whole or in parts.

    Args:
        alphabet: what the labels stand for.
        seconds_per_frame: duration of an output frame.
        calibration: the model's calibration.
        search: the beam search; None for greedy decoding, which finds one hypothesis.
        num_best: the largest number of hypotheses to return.
        name: name of this decoder in reports.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        seconds_per_frame: float,
        calibration: Calibration = UNCALIBRATED,
        search: "BeamSearch | None" = None,
        num_best: int = 1,
        name: str = "greedy",
    ) -> None:
        self._alphabet, self._seconds_per_frame, self._calibration = alphabet, seconds_per_frame, calibration
        self._search, self._num_best = search, num_best
        self._name = name

    def __str__(self) -> str:
        return self._name

    def __call__(self, log_probs: np.ndarray, duration: float | None = None) -> list[Hypothesis]:
        """Decodes an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms, no padding.
            duration: duration of the recording in seconds; None for the duration of the frames.

        Returns:
            At least one hypothesis, the best first. If a closed vocabulary allows no text, the only hypothesis is
            empty.
        """
        stream = self.start()
        stream.read(log_probs)
        return stream.finish(duration)

    def start(self) -> StreamDecoder:
        """Starts an utterance whose frames come in parts. Any number of utterances may run at the same time."""
        return StreamDecoder(self._alphabet, None if self._search is None else self._search.start(), self._finish)

    def _finish(
        self, search: "PartialSearch | None", log_probs: np.ndarray, duration: float | None
    ) -> list[Hypothesis]:
        """Makes the hypotheses of an utterance that `search` has read; without a search, decodes it greedily."""
        if search is None:  # needs neither Numba nor RapidFuzz
            return [self.hypothesis(greedy_decode(log_probs), log_probs, duration)]
        from ds2_jax.decoding.alignment import align_labels
        from ds2_jax.decoding.confidence import NUM_READINGS, posteriors, with_posteriors

        found = search.hypotheses(max(self._num_best, NUM_READINGS))
        if not found:
            return [self.hypothesis([], log_probs)._replace(score=float(log_probs[:, Alphabet.blank_index].sum()))]
        texts = [" ".join(self._alphabet.decode(each.labels).split()) for each in found]
        probabilities = posteriors([each.score for each in found])
        readings = []
        for each in found[: self._num_best]:
            reading = self.hypothesis(align_labels(log_probs, each.labels), log_probs, duration)._replace(
                score=each.score
            )
            readings.append(with_posteriors(reading, texts, probabilities))
        return readings

    def knows(self, word: str) -> bool:
        """Whether the language model knows a word; True without a language model of words."""
        return self._search is None or self._search.knows(word)

    def hypothesis(
        self,
        spans: Sequence[LabelSpan],
        log_probs: np.ndarray,
        duration: float | None = None,
        *,
        a_character: bool = False,
    ) -> Hypothesis:
        """Calls `make_hypothesis` with this decoder's alphabet, frame duration and calibration."""
        decoder = self._alphabet, self._seconds_per_frame, self._calibration
        return make_hypothesis(spans, log_probs, *decoder, duration, a_character=a_character)


def make_decoder(config: Config, options: DecodingOptions = GREEDY, calibration: Calibration = UNCALIBRATED) -> Decoder:
    """Makes a model's decoder.

    Args:
        config: the run's configuration.
        options: the decoding options. Weights of the language model that are None take their defaults.
        calibration: the model's calibration.

    Raises:
        InputError: the language model cannot be read, or the model or the hot words do not fit the alphabet.
    """
    alphabet = Alphabet.of(config.data)
    if not options.beam:
        return Decoder(alphabet, config.seconds_per_frame, calibration)
    from ds2_jax.decoding.beam.search import BeamSearch
    from ds2_jax.decoding.ngram.model import load

    search = BeamSearch(alphabet, options, load(options.lm) if options.lm else None)
    return Decoder(alphabet, config.seconds_per_frame, calibration, search, options.num_best, str(options))

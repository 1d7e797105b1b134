"""From an utterance's log-probabilities to its readings: what evaluation and transcription share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ds2_jax.config import Config
from ds2_jax.decoding.calibration import UNCALIBRATED, Calibration
from ds2_jax.decoding.confidence import NUM_READINGS, posteriors, with_posteriors
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Hypothesis, LabelSpan, make_hypothesis
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.text.alphabet import Alphabet

if TYPE_CHECKING:  # Numba, which takes its time to load, comes with it
    from ds2_jax.decoding.beam.search import BeamSearch


class Decoder:
    """Decodes one utterance after another.

    Args:
        alphabet: what the labels stand for.
        seconds_per_frame: duration of an output frame.
        calibration: of the model.
        search: finds the readings; None: greedy decoding finds one.
        num_best: the most readings to find.
        name: how the report calls it.
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
        """Reads an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms, no padding.
            duration: seconds, of the recording; None: that of the frames.

        Returns:
            At least one reading, the best first; the empty one where a closed vocabulary allows no other.
        """
        if self._search is None:
            return [self.hypothesis(greedy_decode(log_probs), log_probs, duration)]
        from ds2_jax.decoding.alignment import align

        found = self._search(log_probs, max(self._num_best, NUM_READINGS))
        if not found:
            return [self.hypothesis([], log_probs)._replace(score=float(log_probs[:, Alphabet.blank_index].sum()))]
        texts = [" ".join(self._alphabet.decode(each.labels).split()) for each in found]
        probabilities = posteriors([each.score for each in found])
        readings = []
        for each in found[: self._num_best]:
            reading = self.hypothesis(align(log_probs, each.labels), log_probs, duration)._replace(score=each.score)
            readings.append(with_posteriors(reading, texts, probabilities))
        return readings

    def hypothesis(
        self, spans: Sequence[LabelSpan], log_probs: np.ndarray, duration: float | None = None
    ) -> Hypothesis:
        """`make_hypothesis` with this decoder's alphabet, frames and calibration."""
        return make_hypothesis(spans, log_probs, self._alphabet, self._seconds_per_frame, self._calibration, duration)


def make_decoder(config: Config, options: DecodingOptions = GREEDY, calibration: Calibration = UNCALIBRATED) -> Decoder:
    """The decoder of a model.

    Args:
        config: of its run.
        options: how to decode; weights of a language model that are not given are the defaults.
        calibration: of the model.

    Raises:
        InputError: the language model cannot be read, or it or the hot words do not fit the alphabet.
    """
    alphabet = Alphabet.of(config.data)
    if not options.beam:
        return Decoder(alphabet, config.seconds_per_frame, calibration)
    from ds2_jax.decoding.beam.search import BeamSearch
    from ds2_jax.decoding.ngram.model import load

    search = BeamSearch(alphabet, options, load(options.lm) if options.lm else None)
    return Decoder(alphabet, config.seconds_per_frame, calibration, search, options.num_best, str(options))

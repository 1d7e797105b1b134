"""From an utterance's log-probabilities to its readings: what evaluation and transcription share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ds2_jax.alphabet import Alphabet
from ds2_jax.config import Config
from ds2_jax.decoding.calibrated import UNCALIBRATED, Calibration, read_calibration
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Hypothesis, LabelSpan, make_hypothesis


class Decoder:
    """Decodes one utterance after another.

    Args:
        alphabet: what the labels stand for.
        seconds_per_frame: duration of an output frame.
        calibration: of the model.
    """

    def __init__(self, alphabet: Alphabet, seconds_per_frame: float, calibration: Calibration = UNCALIBRATED) -> None:
        self._alphabet = alphabet
        self._seconds_per_frame = seconds_per_frame
        self._calibration = calibration

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Reads an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms, no padding.

        Returns:
            At least one reading, the best first.
        """
        return [self.hypothesis(greedy_decode(log_probs), log_probs)]

    def hypothesis(self, spans: Sequence[LabelSpan], log_probs: np.ndarray) -> Hypothesis:
        """`make_hypothesis` with this decoder's alphabet, frames and calibration."""
        return make_hypothesis(spans, log_probs, self._alphabet, self._seconds_per_frame, self._calibration)


def make_decoder(config: Config, run: Path | None = None) -> Decoder:
    """The decoder of a model.

    Args:
        config: of its run.
        run: folder of the run, which keeps what was fitted to the model; None: nothing was.

    Raises:
        InputError: what the run keeps is damaged.
    """
    calibration = UNCALIBRATED if run is None else read_calibration(run)
    return Decoder(Alphabet.of(config.data), config.seconds_per_frame, calibration)

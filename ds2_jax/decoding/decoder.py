"""From an utterance's log-probabilities to its readings: what evaluation and transcription share."""

from pathlib import Path

import numpy as np

from ds2_jax.alphabet import Alphabet
from ds2_jax.config import Config
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Hypothesis, make_hypothesis


class Decoder:
    """Decodes one utterance after another.

    Args:
        alphabet: what the labels stand for.
        seconds_per_frame: duration of an output frame.
    """

    def __init__(self, alphabet: Alphabet, seconds_per_frame: float) -> None:
        self._alphabet = alphabet
        self._seconds_per_frame = seconds_per_frame

    def __str__(self) -> str:
        return "greedy"

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Reads an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms, no padding.

        Returns:
            At least one reading, the best first.
        """
        return [make_hypothesis(greedy_decode(log_probs), log_probs, self._alphabet, self._seconds_per_frame)]


def make_decoder(config: Config, run: Path | None = None) -> Decoder:  # noqa: ARG001
    """The decoder of a model.

    Args:
        config: of its run.
        run: folder of the run, which keeps what was fitted to the model; None: nothing was.
    """
    return Decoder(Alphabet.of(config.data), config.seconds_per_frame)

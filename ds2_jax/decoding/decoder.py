"""From an utterance's log-probabilities to its readings: what evaluation and transcription share."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ds2_jax.alphabet import Alphabet
from ds2_jax.config import Config
from ds2_jax.decoding.greedy import greedy_decode
from ds2_jax.decoding.hypothesis import Hypothesis, make_hypothesis
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.decoding.tuned import with_tuned

if TYPE_CHECKING:  # Numba, which takes its time to load, comes with it
    from ds2_jax.decoding.beam import BeamSearch


class Decoder:
    """Decodes one utterance after another.

    Args:
        alphabet: what the labels stand for.
        seconds_per_frame: duration of an output frame.
        search: finds the readings; None: greedy decoding finds one.
        num_best: the most readings to find.
    """

    def __init__(
        self, alphabet: Alphabet, seconds_per_frame: float, search: "BeamSearch | None" = None, num_best: int = 1
    ) -> None:
        self._alphabet, self._seconds_per_frame = alphabet, seconds_per_frame
        self._search, self._num_best = search, num_best

    def __call__(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Reads an utterance.

        Args:
            log_probs: [T', V] float32, natural logarithms, no padding.

        Returns:
            At least one reading, the best first; the empty one where a closed vocabulary allows no other.
        """
        if self._search is None:
            spans = greedy_decode(log_probs)
            return [make_hypothesis(spans, log_probs, self._alphabet, self._seconds_per_frame)]
        from ds2_jax.decoding.align import align

        readings = []
        for found in self._search(log_probs, self._num_best):
            spans = align(log_probs, found.labels)
            reading = make_hypothesis(spans, log_probs, self._alphabet, self._seconds_per_frame)
            readings.append(reading._replace(score=found.score))
        silence = make_hypothesis([], log_probs, self._alphabet, self._seconds_per_frame)
        return readings or [silence._replace(score=float(log_probs[:, Alphabet.blank_index].sum()))]


def make_decoder(
    config: Config,
    run: Path | None = None,
    options: DecodingOptions = GREEDY,
) -> Decoder:
    """The decoder of a model.

    Args:
        config: of its run.
        run: folder of the run, which keeps what was fitted to the model; None: nothing was.
        options: how to decode.

    Raises:
        InputError: the language model cannot be read, or does not fit the alphabet, or the hot words do not.
    """
    alphabet = Alphabet.of(config.data)
    if not options.beam:
        return Decoder(alphabet, config.seconds_per_frame)
    from ds2_jax.decoding.beam import BeamSearch
    from ds2_jax.ngram.model import load

    model = load(options.lm) if options.lm else None
    if options.lm and run:
        options = with_tuned(options, run)
    return Decoder(alphabet, config.seconds_per_frame, BeamSearch(alphabet, options, model), options.num_best)

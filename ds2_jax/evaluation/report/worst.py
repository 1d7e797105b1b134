"""The worst utterances of an evaluation, with what the model gave for them."""

import heapq
from typing import NamedTuple

import numpy as np

from ds2_jax.evaluation.error_rates import char_errors
from ds2_jax.evaluation.results import Result


class Example(NamedTuple):
    """An utterance and the model's output for it.

    Attributes:
        result: the utterance and what was recognised.
        log_probs: [T', V] float32, natural logarithms, no padding.
    """

    result: Result
    log_probs: np.ndarray


class Worst:
    """Keeps the worst utterances of those it is told of: most word errors, then most character errors, then least sure.

    Args:
        num_kept: how many.
    """

    def __init__(self, num_kept: int) -> None:
        self._num_kept = num_kept
        self._heap: list[tuple[int, int, float, str, Example]] = []  # no two of the same id: none is compared further

    def __call__(self, result: Result, log_probs: np.ndarray) -> None:
        """Takes an utterance into account; [T', V] float32."""
        characters = char_errors(result.reference, result.hypothesis, spaces=True).edits
        unsure = -result.readings[0].confidence
        example = Example(result, log_probs.copy())  # no view of a batch
        item = (result.words.edits, characters, unsure, result.utterance.id, example)
        push = heapq.heappush if len(self._heap) < self._num_kept else heapq.heappushpop
        push(self._heap, item)

    @property
    def examples(self) -> list[Example]:
        """The worst first."""
        return [item[-1] for item in sorted(self._heap, reverse=True)]

"""Collects the worst utterances of an evaluation, with the model's outputs for them."""

import heapq
from typing import NamedTuple

import numpy as np

from ds2_jax.evaluation.error_rates import char_errors
from ds2_jax.evaluation.results import Result


class Example(NamedTuple):
    """An utterance and the model's output for it.

    Attributes:
        result: the utterance and what was recognised.
        log_probs: [T', V] float32, natural logarithms, without padding.
    """

    result: Result
    log_probs: np.ndarray


class Worst:
    """Collects the utterances with the most word errors; ties go to more character errors, then to less confidence.

    Args:
        num_kept: the number of utterances to keep.
    """

    def __init__(self, num_kept: int) -> None:
        self._num_kept = num_kept
        self._heap: list[tuple[int, int, float, str, Example]] = []  # ids differ, so examples are not compared

    def __call__(self, result: Result, log_probs: np.ndarray) -> None:
        """Adds an utterance if it is among the worst; `log_probs` is [T', V] float32."""
        characters = char_errors(result.reference, result.hypothesis, spaces=True).edits
        unsure = -result.readings[0].confidence
        example = Example(result, log_probs.copy())  # a view would keep the batch in memory
        item = (result.words.edits, characters, unsure, result.utterance.id, example)
        push = heapq.heappush if len(self._heap) < self._num_kept else heapq.heappushpop
        push(self._heap, item)

    @property
    def examples(self) -> list[Example]:
        """The collected utterances, the worst first."""
        return [item[-1] for item in sorted(self._heap, reverse=True)]

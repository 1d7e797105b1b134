"""Decodes an utterance while it is spoken: its log-probabilities come in parts, and text is shown at any time."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.text.alphabet import Alphabet

if TYPE_CHECKING:  # it imports Numba, which loads slowly
    from ds2_jax.decoding.beam.search import PartialSearch

Finish = Callable[["PartialSearch | None", np.ndarray, float | None], list[Hypothesis]]
"""Makes the hypotheses of a search, or of greedy decoding, from all log-probabilities and the recording's duration."""


class Partial(NamedTuple):
    """The best text of the frames read so far, in two parts. The whole text is `final + open`.

    Attributes:
        final: what no later frame can change. It only grows, at its end. It has no space at its end.
        open: the rest, which may change. It begins with a space if a new word begins there.
    """

    final: str
    open: str


class StreamDecoder:
    """Decodes one utterance in parts, made by `Decoder.start`. Any number of them may run at the same time.

    Args:
        alphabet: what the labels stand for.
        search: a new beam search; None for greedy decoding.
        finish: makes the hypotheses.

    Attributes:
        trailing_blanks: number of frames, at the end of those read, whose most likely label is blank.
        has_text: whether greedy decoding of the frames read finds any character other than a space.
    """

    def __init__(self, alphabet: Alphabet, search: "PartialSearch | None", finish: Finish) -> None:
        self._alphabet, self._search, self._finish = alphabet, search, finish
        self._parts = [np.zeros((0, alphabet.size), np.float32)]
        self._greedy_labels: list[int] = []
        self._last_label = alphabet.blank_index  # the most likely label of the last frame
        self._finished = False
        self.trailing_blanks = 0
        self.has_text = False

    def read(self, log_probs: np.ndarray) -> None:
        """Reads the next frames. They are kept until `finish`, because word times need them.

        Args:
            log_probs: [T', V] float32, natural logarithms; T' may be 0.

        Raises:
            InputError: beam search found NaN or positive infinity. These frames are not read.
        """
        assert not self._finished, "the utterance is finished; start another StreamDecoder"
        if self._search is not None:
            self._search.read(log_probs)
        self._parts.append(np.array(log_probs))  # the caller may use the array again
        for label in self._parts[-1].argmax(-1).tolist():
            self.trailing_blanks = self.trailing_blanks + 1 if label == self._alphabet.blank_index else 0
            if label not in (self._last_label, self._alphabet.blank_index):
                self._greedy_labels.append(label)
            self._last_label = label
        self.has_text = self.has_text or bool(self._text(self._greedy_labels))

    def partial(self) -> Partial:
        """Returns the text of the frames read so far.

        All text of greedy decoding is final. In beam search, the text is that of the prefix that ranks best, and the
        labels with which all prefixes in the beam begin are final. The last word, which may be incomplete, has no score
        of the language model yet.

        The text of `finish` begins with `final`. There is one exception: if no text is possible in the end, because a
        closed vocabulary forbids all that are left or a frame has no possible label, the text of `finish` is empty.
        """
        labels, num_final = self._greedy_labels, len(self._greedy_labels)
        if self._search is not None:
            labels, num_final = self._search.best()
        final = self._text(labels[:num_final])
        return Partial(final, self._text(labels)[len(final) :])

    def reading(self) -> Hypothesis:
        """Returns the best hypothesis of the frames read so far, as if they were all. The utterance goes on."""
        return self._finish(self._search, np.concatenate(self._parts), None)[0]

    def finish(self, duration: float | None = None) -> list[Hypothesis]:
        """Ends the utterance. Returns what `Decoder.__call__` gives for all frames together and this duration."""
        assert not self._finished, "the utterance is finished; start another StreamDecoder"
        self._finished = True
        return self._finish(self._search, np.concatenate(self._parts), duration)

    def _text(self, labels: Iterable[int]) -> str:
        return " ".join(self._alphabet.decode(labels).split())

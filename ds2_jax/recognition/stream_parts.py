"""Recognises the segments of a stream, one after the other: step by step, or again and again as they grow."""

import abc
from collections.abc import Generator

import numpy as np

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.decoding.stream import StreamDecoder
from ds2_jax.recognition.piece_outputs import log_probs_of
from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
from ds2_jax.runs.model import Model

GROWTH = 0.125
"""A segment is recognised again when it has grown by this share, and by at least LEAST_GROWTH seconds."""
LEAST_GROWTH = 0.4

Work = Generator[StepInput, np.ndarray, None]
"""Asks for steps of the model and gets log-probabilities [T', V]. The caller makes the steps of all streams at once."""


class Part(abc.ABC):
    """Recognises one segment after the other. `begin` comes before each.

    Args:
        decoder: decodes the segments.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._decoding: StreamDecoder = decoder.start()
        self._num_samples = 0

    def begin(self) -> None:
        """Begins a segment."""
        self._decoding, self._num_samples = self._decoder.start(), 0

    @abc.abstractmethod
    def hear(self, samples: np.ndarray) -> Work:
        """Recognises the next samples [S] float32: those of a step, or fewer at the end of the stream."""

    @abc.abstractmethod
    def end(self) -> Work:
        """Recognises what is left of the segment."""

    def partial(self) -> tuple[str, str]:
        """Returns the text that is final and the text that may change."""
        return self._decoding.partial()

    def reading(self) -> Hypothesis:
        """Returns the best reading of what has been recognised of the segment, as if it ended there."""
        return self._decoding.reading()

    @property
    def has_text(self) -> bool:
        """Whether the model has written anything."""
        return self._decoding.has_text

    @property
    def trailing_blanks(self) -> int:
        """Output frames at the end for which the model has written nothing."""
        return self._decoding.trailing_blanks

    def readings(self, duration: float) -> list[Hypothesis]:
        """Returns the readings of the segment, which has ended and has this duration in seconds."""
        return self._decoding.finish(duration)

    def close(self) -> None:  # noqa: B027 - only some parts have a place
        """Frees the stream's place."""


class StepwisePart(Part):
    """Recognises segments step by step, with a model that can stream."""

    def __init__(self, steps: StreamSteps, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._steps = steps
        self._slot: int | None = steps.open()
        self._num_steps = 0

    def begin(self) -> None:
        """See `Part`."""
        super().begin()
        self._num_steps = 0

    def hear(self, samples: np.ndarray) -> Work:
        """See `Part`."""
        self._num_samples += len(samples)
        ended = len(samples) < self._steps.samples
        yield from self._step(np.pad(samples, (0, self._steps.samples - len(samples))), ended=ended)

    def end(self) -> Work:
        """See `Part`."""
        while self._num_steps < self._steps.num_steps(self._num_samples):
            yield from self._step(np.zeros(self._steps.samples, np.float32), ended=True)

    def _step(self, samples: np.ndarray, *, ended: bool) -> Work:
        assert self._slot is not None
        num_samples = self._num_samples if ended else -1
        log_probs = yield StepInput(self._slot, samples, num_samples, self._num_steps == 0)
        first = self._num_steps * self._steps.frames - self._steps.delay
        stop = self._steps.num_frames(self._num_samples) - first if ended else len(log_probs)
        self._num_steps += 1
        self._decoding.read(log_probs[max(0, -first) : max(0, stop)])

    def close(self) -> None:
        """See `Part`."""
        if self._slot is not None:
            self._steps.close(self._slot)
        self._slot = None


class GrowingPart(Part):
    """Recognises the open segment again as it grows, with any model. Nothing is final before the end."""

    def __init__(self, model: Model, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._model = model
        self._samples: list[np.ndarray] = []
        self._num_recognised = 0

    def begin(self) -> None:
        """See `Part`."""
        super().begin()
        self._samples, self._num_recognised = [], 0

    def hear(self, samples: np.ndarray) -> Work:
        """See `Part`."""
        self._samples.append(samples)
        self._num_samples += len(samples)
        least = LEAST_GROWTH * self._model.config.features.sample_rate
        if self._num_samples - self._num_recognised >= max(least, GROWTH * self._num_samples):
            self._recognise()
        yield from ()  # it asks for no steps

    def end(self) -> Work:
        """See `Part`."""
        if self._num_recognised < self._num_samples:
            self._recognise()
        yield from ()  # it asks for no steps

    def _recognise(self) -> None:
        self._decoding = self._decoder.start()
        [log_probs] = log_probs_of(self._model, [np.concatenate(self._samples)])
        self._decoding.read(log_probs)
        self._num_recognised = self._num_samples

    def partial(self) -> tuple[str, str]:
        """See `Part`."""
        return "", "".join(self._decoding.partial())

"""Recognises the segments of a stream, one after the other: step by step, or again and again as they grow."""

from collections.abc import Generator
from typing import Protocol

import numpy as np

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.decoding.stream import StreamDecoder
from ds2_jax.recognition.piece_outputs import log_probs_of
from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
from ds2_jax.runs.trained import TrainedModel

GROWTH = 0.125
"""A segment is recognised again when it has grown by this share, and by at least LEAST_GROWTH seconds."""
LEAST_GROWTH = 0.4

Work = Generator[StepInput, np.ndarray, None]
"""Asks for steps of the model and gets log-probabilities [T', V]. The caller makes the steps of all streams at once."""


class Part(Protocol):
    """Recognises one segment after the other."""

    def begin(self) -> None:
        """Begins a segment."""

    def hear(self, samples: np.ndarray) -> Work:
        """Recognises the next samples [S] float32: those of a step, or fewer at the end of the stream."""

    def end(self) -> Work:
        """Recognises what is left of the segment."""

    def partial(self) -> tuple[str, str]:
        """Returns the text that is final and the text that may change."""

    @property
    def has_text(self) -> bool:
        """Whether the model has written anything."""

    @property
    def trailing_blanks(self) -> int:
        """Output frames at the end for which the model has written nothing."""

    def readings(self, duration: float) -> list[Hypothesis]:
        """Returns the readings of the segment, which has ended and has this duration in seconds."""

    def close(self) -> None:
        """Frees the stream's place."""


class StepwisePart:
    """Recognises segments step by step, with a model that can stream."""

    def __init__(self, steps: StreamSteps, decoder: Decoder) -> None:
        self._steps, self._decoder = steps, decoder
        self._slot: int | None = steps.open()
        self.begin()

    def begin(self) -> None:
        """See `Part`."""
        self._decoding: StreamDecoder = self._decoder.start()
        self._num_samples = self._num_steps = 0

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
        behind = self._steps.num_frames(self._num_samples) - first if ended else len(log_probs)
        self._num_steps += 1
        self._decoding.read(log_probs[max(0, -first) : max(0, behind)])

    def partial(self) -> tuple[str, str]:
        """See `Part`."""
        final, open_ = self._decoding.partial()
        return final, open_

    @property
    def has_text(self) -> bool:
        """See `Part`."""
        return self._decoding.has_text

    @property
    def trailing_blanks(self) -> int:
        """See `Part`."""
        return self._decoding.trailing_blanks

    def readings(self, duration: float) -> list[Hypothesis]:
        """See `Part`."""
        return self._decoding.finish(duration)

    def close(self) -> None:
        """See `Part`."""
        if self._slot is not None:
            self._steps.close(self._slot)
        self._slot = None


class GrowingPart:
    """Recognises the open segment again as it grows, with any model. Nothing is final before the end."""

    def __init__(self, model: TrainedModel, decoder: Decoder) -> None:
        self._model, self._decoder = model, decoder
        self.begin()

    def begin(self) -> None:
        """See `Part`."""
        self._samples: list[np.ndarray] = []
        self._num_samples = self._num_recognised = 0
        self._recognised = self._decoder.start()

    def hear(self, samples: np.ndarray) -> Work:
        """See `Part`."""
        self._samples.append(samples)
        self._num_samples += len(samples)
        least = LEAST_GROWTH * self._model.config.features.sample_rate
        if self._num_samples - self._num_recognised >= max(least, GROWTH * self._num_samples):
            self._recognise()
        yield from ()

    def end(self) -> Work:
        """See `Part`."""
        if self._num_recognised < self._num_samples:
            self._recognise()
        yield from ()

    def _recognise(self) -> None:
        self._recognised = self._decoder.start()
        [log_probs] = log_probs_of(self._model, [np.concatenate(self._samples)])
        self._recognised.read(log_probs)
        self._num_recognised = self._num_samples

    def partial(self) -> tuple[str, str]:
        """See `Part`."""
        return "", "".join(self._recognised.partial())

    @property
    def has_text(self) -> bool:
        """See `Part`."""
        return self._recognised.has_text

    @property
    def trailing_blanks(self) -> int:
        """See `Part`."""
        return self._recognised.trailing_blanks

    def readings(self, duration: float) -> list[Hypothesis]:
        """See `Part`."""
        return self._recognised.finish(duration)

    def close(self) -> None:
        """See `Part`."""

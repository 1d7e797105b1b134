"""Recognises a stream of samples while it comes: text while someone speaks, and final text when they pause.

A stream is divided into segments at endpoints. Endpoints depend on the samples alone, never on the sizes of the parts
in which they come: samples are taken in steps of a fixed length. A segment's final text is that of the decoder for all
of its frames.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import soxr

from ds2_jax.audio.arrays import scaled_samples
from ds2_jax.audio.waveform import check_amplitudes
from ds2_jax.config import Config
from ds2_jax.config.live import STEP_SECONDS
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.endpoints import Endpoints
from ds2_jax.recognition.stream_parts import GrowingPart, Part, StepwisePart, Work
from ds2_jax.recognition.stream_steps import StreamSteps
from ds2_jax.recognition.transcript import Segment, shifted
from ds2_jax.runs.model import Model
from ds2_jax.system.errors import InputError

LOUD_SECONDS = 30.0
"""The loud level is that of the loudest step in so many seconds."""
QUIET = 18.0
"""dB. A step that is so far below the loud level is a pause of the signal."""
QUIET_BEFORE = 0.5
"""Seconds of pause of the signal before a segment without text may end."""


class PartialText(NamedTuple):
    """The text of a segment that goes on.

    Attributes:
        final: text that will not change.
        open: the text behind it, which may change.
        time: seconds of the stream that have been heard.
    """

    final: str
    open: str
    time: float


class FinalText(NamedTuple):
    """A segment that has ended.

    Attributes:
        segment: start, end and readings, with times from the start of the stream in seconds.
        time: seconds of the stream that have been heard.
    """

    segment: Segment
    time: float

    @property
    def text(self) -> str:
        """The best reading."""
        return self.segment.readings[0].text

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of the best reading, with times and confidences."""
        return self.segment.readings[0].words

    @property
    def confidence(self) -> float:
        """The probability that the text is right."""
        return self.segment.readings[0].confidence


Event = PartialText | FinalText


class Stream:
    """A stream of samples. `Recogniser.stream` makes it; one thread at a time may use it.

    Args:
        streams: the streams of the model.
        part: recognises the segments.
        sample_rate: sample rate of the samples to come, in Hz.
        endpoints: when a segment ends.
    """

    def __init__(self, streams: "Streams", part: Part, sample_rate: int, endpoints: Endpoints) -> None:
        self._streams, self._part, self._endpoints = streams, part, endpoints
        self._rate = streams.config.features.sample_rate
        self._resampler = None
        if sample_rate != self._rate:
            self._resampler = soxr.ResampleStream(sample_rate, self._rate, 1, dtype="float32", quality="HQ")
        self._lock = threading.Lock()
        self._finished = False
        self._num_fed = 0
        self._waiting: deque[np.ndarray] = deque()
        self._num_waiting = 0
        self._events: list[Event] = []
        self._levels: deque[float] = deque(maxlen=round(LOUD_SECONDS * self._rate / streams.step_samples))
        self._start = 0  # of the segment, in samples
        self._begin()

    def _begin(self) -> None:
        self._length = 0  # samples of the segment
        self._quiet = 0  # samples of the pause at its end
        self._shown = ("", "")
        self._lowest, self._highest = np.inf, -np.inf
        self._part.begin()

    @property
    def seconds(self) -> float:
        """Seconds of the stream that have been recognised."""
        return (self._start + self._length) / self._rate

    def feed(self, samples: np.ndarray) -> list[Event]:
        """Hears the next samples.

        Args:
            samples: [S] or [S, C], any number; floats with full scale 1, or integers with the full scale of their type.

        Returns:
            What is new: the text of the open segment if it has changed, and final texts of segments that have ended.

        Raises:
            InputError: the samples have another shape or type, or NaN; the stream is finished; or another thread uses
                the stream.

        Example:
            >>> stream = ds2_jax.load("runs/an4_cpu").stream(sample_rate=44_100)
            >>> events = stream.feed(np.zeros(44_100, np.int16)) + stream.finish()
            >>> texts = [event.text for event in events if isinstance(event, ds2_jax.FinalText)]
        """
        return self._streams.feed({self: samples})[self]

    def finish(self) -> list[Event]:
        """Recognises what is left. The stream cannot be fed any more. Returns and raises what `feed` does."""
        return self._streams.finish([self])[self]

    def open_words(self) -> tuple[Word, ...]:
        """Finds the words of the open segment, as if it ended here, with times from the start of the stream.

        Raises:
            InputError: another thread uses the stream.
        """
        with _used([self]):
            if self._constant or not self._length:
                return ()
            start, end = (each / self._rate for each in (self._start, self._start + self._length))
            return shifted(self._part.reading(), start, end).words

    def _take(self, samples: np.ndarray) -> None:
        """Checks samples and puts them, as a waveform at the model's rate, behind those that wait."""
        if self._finished:
            raise InputError("A stream must be fed before it is finished, got samples after it. Open another stream.")
        scaled = scaled_samples(np.asarray(samples))
        check_amplitudes(scaled, "The stream", self._num_fed)
        self._num_fed += len(scaled)
        self._put(scaled.mean(axis=1), last=False)

    def _end(self) -> None:
        if not self._finished:
            self._finished = True
            self._put(np.zeros(0, np.float32), last=True)

    def _put(self, waveform: np.ndarray, *, last: bool) -> None:
        if self._resampler is not None:
            waveform = self._resampler.resample_chunk(waveform, last=last)
        if len(waveform):
            self._waiting.append(waveform)
            self._num_waiting += len(waveform)

    def _next(self) -> np.ndarray | None:
        """Takes the samples of a step, fewer at the end of the stream; None if they have not come, or none are left."""
        wanted = self._streams.step_samples
        if self._num_waiting < wanted:
            if not (self._finished and self._num_waiting):
                return None
            wanted = self._num_waiting
        self._num_waiting -= wanted
        parts = []
        while wanted:
            first = self._waiting.popleft()
            parts.append(first[:wanted])
            if len(first) > wanted:
                self._waiting.appendleft(first[wanted:])
            wanted -= len(parts[-1])
        return np.concatenate(parts)

    def _work(self) -> Work:
        """Recognises the samples that wait."""
        while (samples := self._next()) is not None:
            yield from self._part.hear(samples)
            self._length += len(samples)
            self._note(samples)
            if self._at_endpoint():
                yield from self._end_segment()
        if self._finished and self._length:
            yield from self._end_segment()

    def _note(self, samples: np.ndarray) -> None:
        """Notes the level of a step, and the text if it has changed."""
        self._levels.append(10 * np.log10(float(np.var(samples)) + 1e-12))
        quiet = self._levels[-1] < max(self._levels) - QUIET
        self._quiet = self._quiet + len(samples) if quiet else 0
        self._lowest = min(self._lowest, samples.min())
        self._highest = max(self._highest, samples.max())
        if self._constant:
            return
        if (text := self._part.partial()) != self._shown:
            self._shown = text
            self._events.append(PartialText(*text, self.seconds))

    @property
    def _constant(self) -> bool:
        """Whether all samples of the segment so far are equal. Models may write text for that; it is dropped."""
        return bool(self._lowest == self._highest)

    def _at_endpoint(self) -> bool:
        """Whether the segment ends here."""
        rules, length = self._endpoints, self._length / self._rate
        if length >= rules.longest:
            return True
        if self._constant or not self._part.has_text:
            # A word that has just begun has no text yet, so wait for a pause.
            return length >= rules.no_speech and (self._constant or self._quiet >= QUIET_BEFORE * self._rate)
        blank = self._part.trailing_blanks * self._streams.config.seconds_per_frame
        pause = min(blank, self._quiet / self._rate)
        return blank >= rules.no_labels or pause >= rules.pause

    def _end_segment(self) -> Work:
        """Finds the final text of the segment and begins another."""
        yield from self._part.end()
        start, end = (each / self._rate for each in (self._start, self._start + self._length))
        readings = self._part.readings(end - start)
        if not self._constant and any(reading.text for reading in readings):
            segment = Segment(start, end, [shifted(reading, start, end) for reading in readings])
            self._events.append(FinalText(segment, self.seconds))
        elif self._shown != ("", ""):
            self._events.append(PartialText("", "", self.seconds))
        self._start += self._length
        self._begin()

    def close(self) -> None:
        """Gives up the stream. What is left is not recognised."""
        self._finished = True
        self._part.close()


class Streams:
    """Opens streams of one model, and recognises several at once.

    Args:
        model: the model.
        decoder: its decoder.
        step_seconds: seconds of sound that are recognised at once.
    """

    def __init__(self, model: Model, decoder: Decoder, step_seconds: float = STEP_SECONDS) -> None:
        self.config: Config = model.config
        self._model, self._decoder = model, decoder
        frame = self.config.model.time_reduction * self.config.features.hop_length
        self.step_samples = max(1, round(step_seconds * self.config.features.sample_rate / frame)) * frame
        self.steps = StreamSteps(model, self.step_samples // frame) if model.can_stream else None

    def open(self, sample_rate: int, endpoints: Endpoints, decoder: Decoder | None = None) -> Stream:
        """Opens a stream, with a decoder of its own if one is given; see `Stream`."""
        decoder = decoder or self._decoder
        part = StepwisePart(self.steps, decoder) if self.steps else GrowingPart(self._model, decoder)
        return Stream(self, part, sample_rate, endpoints)

    def feed(self, samples: Mapping[Stream, np.ndarray]) -> dict[Stream, list[Event]]:
        """Feeds several streams at once, which takes less time than one after the other; see `Stream.feed`."""
        with _used(samples):
            for stream, own in samples.items():
                stream._take(own)
            return self._run(list(samples))

    def finish(self, streams: Sequence[Stream]) -> dict[Stream, list[Event]]:
        """Finishes several streams at once; see `Stream.finish`."""
        with _used(streams):
            for stream in streams:
                stream._end()
            events = self._run(streams)
            for stream in streams:
                stream.close()
            return events

    def _run(self, streams: Sequence[Stream]) -> dict[Stream, list[Event]]:
        """Recognises what waits in streams, step by step, each step of all streams at once."""
        work = {stream: stream._work() for stream in streams}
        inputs = {stream: step for stream in streams if (step := next(work[stream], None)) is not None}
        while inputs:
            assert self.steps is not None
            outputs = zip(list(inputs), self.steps.run(list(inputs.values())), strict=True)
            inputs = {}
            for stream, log_probs in outputs:
                with contextlib.suppress(StopIteration):
                    inputs[stream] = work[stream].send(log_probs)
        events = {stream: stream._events for stream in streams}
        for stream in streams:
            stream._events = []
        return events


@contextlib.contextmanager
def _used(streams: Iterable[Stream]) -> Generator[None, None, None]:
    """Keeps other threads from using streams."""
    with contextlib.ExitStack() as stack:
        for stream in streams:
            if not stream._lock.acquire(blocking=False):
                raise InputError("A stream must be used by one thread at a time, got a second one. Open more streams.")
            stack.callback(stream._lock.release)
        yield

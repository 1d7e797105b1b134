"""What the threads of the models do with a recording: its pieces go through the model, its segments are decoded."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.assembly import Assembly, make_transcript
from ds2_jax.recognition.endpoints import ENDPOINTS
from ds2_jax.recognition.piece_outputs import BATCH_SIZE, End, NamedBlocks, PieceOutput, cut_recording
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.segments import Piece
from ds2_jax.recognition.streaming import Event, FinalText
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.scheduler import Job
from ds2_jax.system.errors import InputError

STEPS_AT_ONCE = 8
"""Steps of a model that hears a recording step by step. Live streams wait for them."""
Result = Segment | Transcript | Exception
"""Segments in order, then the transcript; or an error."""
Emit = Callable[[Result], None]


def make_job(
    recogniser: Recogniser, recording: NamedBlocks, emit: Emit, now: float, decoder: Decoder | None = None
) -> Job:
    """Makes the job of a recording.

    Args:
        recogniser: the model.
        recording: the recording.
        emit: gets the results; a thread of the models calls it.
        now: the time in seconds.
        decoder: decodes the segments, if not that of the recogniser.
    """
    can_stream = recogniser.streams.steps is not None
    work: PieceWork | StreamWork
    if can_stream:
        work = StreamWork(recogniser, recording, emit, decoder)
        pieces = blocks_as_pieces(recording, STEPS_AT_ONCE * recogniser.streams.step_samples)
    else:
        work, pieces = PieceWork(recogniser, recording, emit, decoder), cut_recording(recording, recogniser.config)
    return Job(recogniser, recogniser.config.features.sample_rate, _closing(pieces, recording), work, emit, now)


def _closing(pieces: Generator[Piece | End, None, None], recording: NamedBlocks) -> Generator[Piece | End, None, None]:
    """Yields pieces, and closes the file with them."""
    with contextlib.closing(pieces):
        try:
            yield from pieces
        finally:
            if isinstance(recording.blocks, Generator):
                recording.blocks.close()


class PieceWork:
    """Runs pieces of a recording through a model that hears a recording as a whole; see `scheduler.Work`."""

    repeatable = True
    batch_size = pieces_at_once = BATCH_SIZE

    def __init__(self, recogniser: Recogniser, recording: NamedBlocks, emit: Emit, decoder: Decoder | None) -> None:
        self._recogniser, self._emit = recogniser, emit
        self._assembly = Assembly(recording, recogniser.config, decoder or recogniser.decode_segment)

    def run(self, pieces: Sequence[tuple[Job, Piece]]) -> list[np.ndarray]:
        """See `scheduler.Work`."""
        return self._recogniser.piece_log_probs([piece.waveform for _, piece in pieces])

    def hand(self, piece: Piece, result: Any) -> None:
        """See `scheduler.Work`."""
        for segment in self._assembly.add(PieceOutput(piece, result)):
            self._emit(segment)

    def finish(self, jobs: Sequence[Job]) -> None:
        """See `scheduler.Work`."""

    def end(self, end: End) -> None:
        """See `scheduler.Work`."""
        if end.error:
            raise end.error
        for segment in self._assembly.add(end):
            self._emit(segment)
        self._emit(self._assembly.transcript(end))

    def close(self) -> None:
        """See `scheduler.Work`."""


class StreamWork:
    """Runs a recording through a model that hears it step by step, as `transcribe` does; see `scheduler.Work`."""

    repeatable = False
    batch_size, pieces_at_once = 16, 1

    def __init__(self, recogniser: Recogniser, recording: NamedBlocks, emit: Emit, decoder: Decoder | None) -> None:
        self._recogniser, self._recording, self._emit = recogniser, recording, emit
        rate = recogniser.config.features.sample_rate
        self._stream = recogniser.streams.open(rate, ENDPOINTS, decoder)
        self._found: list[Segment] = []
        self._last: list[Event] = []

    def run(self, pieces: Sequence[tuple[Job, Piece]]) -> list[list[Event]]:
        """Feeds the streams. Gives the events of a stream to the first of its pieces; see `scheduler.Work`."""
        parts: dict[StreamWork, list[np.ndarray]] = {}
        for job, piece in pieces:
            assert isinstance(job.work, StreamWork)
            parts.setdefault(job.work, []).append(piece.waveform)
        fed = {work._stream: np.concatenate(own) for work, own in parts.items()}
        events = self._recogniser.streams.feed(fed)
        rest = {work: events[work._stream] for work in parts}
        return [rest.pop(job.work, []) for job, _ in pieces]  # type: ignore[call-overload]

    def hand(self, piece: Piece, result: Any) -> None:  # noqa: ARG002 - see `scheduler.Work`
        """See `scheduler.Work`."""
        self._note(result)

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, FinalText):
                self._found.append(event.segment)
                self._emit(event.segment)

    def finish(self, jobs: Sequence[Job]) -> None:
        """See `scheduler.Work`."""
        works = [job.work for job in jobs if isinstance(job.work, StreamWork)]
        events = self._recogniser.streams.finish([work._stream for work in works])
        for work in works:
            work._last = events[work._stream]

    def end(self, end: End) -> None:
        """See `scheduler.Work`."""
        if end.error:
            raise end.error
        self._note(self._last)
        self._emit(make_transcript(self._recording, self._stream.seconds, self._found))

    def close(self) -> None:
        """See `scheduler.Work`."""
        self._stream.close()


def blocks_as_pieces(recording: NamedBlocks, size: int) -> Generator[Piece | End, None, None]:
    """Reads a recording and yields it in pieces of at most so many samples, then its end."""
    num_samples = 0
    try:
        for block in recording.blocks:
            for start in range(0, len(block), size):
                yield Piece(0, 0, block[start : start + size])
            num_samples += len(block)
    except InputError as error:
        yield End(num_samples, error)
    else:
        yield End(num_samples)

"""What the model thread does with a recording: its pieces go through the model, its segments are decoded."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.assembly import Assembly, make_transcript
from ds2_jax.recognition.endpoints import ENDPOINTS
from ds2_jax.recognition.piece_outputs import End, NamedBlocks, PieceOutput, cut_recording
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.segments import Piece
from ds2_jax.recognition.streaming import Event, FinalText
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.scheduler import Job
from ds2_jax.system.errors import InputError

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
        emit: gets the results. The model thread calls it.
        now: the time in seconds.
        decoder: decodes the segments, if not that of the recogniser.
    """
    can_stream = recogniser.streams.steps is not None
    work: PieceWork | StreamWork
    if can_stream:
        work, pieces = StreamWork(recogniser, recording, emit, decoder), blocks_as_pieces(recording)
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

    def __init__(self, recogniser: Recogniser, recording: NamedBlocks, emit: Emit, decoder: Decoder | None) -> None:
        self._recogniser, self._recording, self._emit = recogniser, recording, emit
        rate = recogniser.config.features.sample_rate
        self._stream = recogniser.streams.open(rate, ENDPOINTS, decoder)
        self._found: list[Segment] = []

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
        for event in result:
            if isinstance(event, FinalText):
                self._found.append(event.segment)
                self._emit(event.segment)

    def end(self, end: End) -> None:
        """See `scheduler.Work`."""
        if end.error:
            raise end.error
        for event in self._stream.finish():
            if isinstance(event, FinalText):
                self._found.append(event.segment)
                self._emit(event.segment)
        self._emit(make_transcript(self._recording, self._stream.seconds, self._found))

    def close(self) -> None:
        """See `scheduler.Work`."""
        self._stream.close()


def blocks_as_pieces(recording: NamedBlocks) -> Generator[Piece | End, None, None]:
    """Reads a recording and yields its blocks, then its end."""
    num_samples = 0
    try:
        for block in recording.blocks:
            if len(block):
                yield Piece(0, 0, block)
            num_samples += len(block)
    except InputError as error:
        yield End(num_samples, error)
    else:
        yield End(num_samples)

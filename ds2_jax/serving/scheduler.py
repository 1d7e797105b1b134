"""Decides which pieces of which requests the model runs next.

The request with the least audio left comes first, so that a short one does not wait for a long one. A request that
waits gains on the others, so that many short ones do not keep a long one waiting for ever.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

from ds2_jax.recognition.piece_outputs import End
from ds2_jax.recognition.segments import Piece

BATCH_SECONDS = 30.0
"""Seconds of audio in a batch, with padding, unless one piece is longer. Requests that are not short wait for the batch
to end."""
SHORTEST, LONGEST = 0.5, 1.25
"""Lengths of the pieces of a batch, as shares of that of its first one: padding costs time, and so do many batches."""
UNREAD_SECONDS = 60.0
"""What counts as left of a recording that has not been read to its end, besides the pieces that wait."""
AGEING = 30.0
"""For each second since a piece of it was taken last, a request counts as so many seconds of audio shorter."""
SHORT_SECONDS = 10.0
"""A request with so much audio left, or less, is short."""
READ_AHEAD = 8
"""Pieces of a request that may wait; more are read when half of them have been taken."""

Waiting = Piece | End | Exception


class Work(Protocol):
    """What is done with the pieces of a recording. All but the constructor is called by the threads of the models.

    Attributes:
        repeatable: whether `run` can be called again for the same pieces after an error.
        batch_size: pieces that may be run at once.
        pieces_at_once: pieces of one recording among them.
    """

    repeatable: bool
    batch_size: int
    pieces_at_once: int

    def run(self, pieces: "Sequence[tuple[Job, Piece]]") -> Sequence[Any]:
        """Runs the model on pieces of several jobs of this group; returns a result for each."""

    def hand(self, piece: Piece, result: Any) -> None:
        """Takes the result for a piece of this recording; pieces come in order."""

    def finish(self, jobs: "Sequence[Job]") -> None:
        """Runs the model on what is left of several recordings of this group, of which every piece has been run."""

    def end(self, end: End) -> None:
        """Takes the end of the recording: every piece has been run."""

    def close(self) -> None:
        """Frees what it holds."""


class Job:
    """A recording that waits for the model.

    Args:
        group: jobs of the same group can share a batch.
        sample_rate: sample rate of the pieces in Hz.
        pieces: reads the recording; the last one is its end.
        work: what is done with them.
        fail: is told about an error that ends the job.
        now: the time in seconds.

    Attributes:
        waiting: pieces that have been read.
        read: whether all of the recording has been read.
        reading: whether a thread reads it.
        over: whether it needs no more work: it is finished, or has failed, or nobody waits for the result any more.
        created: when it came, in seconds.
        begun: whether a piece has been taken.
        running: whether a thread of the models has taken pieces and not yet handed the results.
        served: when a piece was taken last, in seconds.
    """

    def __init__(
        self,
        group: object,
        sample_rate: int,
        pieces: Generator[Piece | End, None, None],
        work: Work,
        fail: Callable[[Exception], None],
        now: float,
    ) -> None:
        self.group, self.work, self.fail = group, work, fail
        self.pieces = pieces
        self.waiting: deque[Waiting] = deque()
        self.read = self.reading = self.over = self.begun = self.running = False
        self.created = self.served = now
        self._sample_rate = sample_rate

    def seconds(self, piece: Piece) -> float:
        """Returns the length of a piece in seconds."""
        return len(piece.waveform) / self._sample_rate

    def score(self, now: float) -> float:
        """Returns the seconds of audio that are left, less the bonus for waiting. The lowest comes first."""
        return self.left() - AGEING * (now - self.served)

    def left(self) -> float:
        """Returns the seconds of audio that are left."""
        left = sum(self.seconds(each) for each in self.waiting if isinstance(each, Piece))
        return left + (0.0 if self.read else UNREAD_SECONDS)


class Batch(NamedTuple):
    """What a thread of the models does next.

    Attributes:
        pieces: pieces of one group.
        ends: jobs of which every piece has been run, or that failed, and how they end.
        dropped: jobs that are over.
    """

    pieces: list[tuple[Job, Piece]]
    ends: list[tuple[Job, End | Exception]]
    dropped: list[Job]


class Scheduler:
    """The jobs that wait. The caller holds a lock around every method, and where it changes a job."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Adds a job."""
        self.jobs.append(job)

    def has_work(self, *, short: bool = False) -> bool:
        """Whether `take` has something to give."""
        return any(
            not job.running and (job.over or (job.waiting and (not short or job.left() <= SHORT_SECONDS)))
            for job in self.jobs
        )

    def take(self, now: float, *, short: bool = False) -> Batch:
        """Takes the next batch, and forgets the jobs that have ended.

        Pieces of one job are taken in order. Its next ones are taken when `done` has been told of the first.

        Args:
            now: the time in seconds.
            short: whether to take pieces only of short jobs.
        """
        free = [job for job in self.jobs if not job.running]
        dropped = [job for job in free if job.over]
        ends: list[tuple[Job, End | Exception]] = []
        for job in free:
            if job.waiting and not isinstance(first := job.waiting[0], Piece):
                ends.append((job, first))
                job.waiting.clear()
        ended = {*dropped, *(job for job, _ in ends)}
        self.jobs = [job for job in self.jobs if job not in ended]
        pieces = self._pieces(now, short)
        for job, _ in pieces:
            job.running = True
        return Batch(pieces, ends, dropped)

    def done(self, batch: Batch) -> None:
        """Takes note that the pieces of a batch have been run, and their results handed."""
        for job, _ in batch.pieces:
            job.running = False

    def _pieces(self, now: float, short: bool) -> list[tuple[Job, Piece]]:
        waiting = [job for job in self.jobs if job.waiting and not job.running]
        ready = sorted(
            (job for job in waiting if not short or job.left() <= SHORT_SECONDS), key=lambda job: job.score(now)
        )
        if not ready:
            return []
        first = ready[0]
        lead = _next_piece(first)
        assert lead is not None
        longest = lead_seconds = first.seconds(lead)
        taken: list[tuple[Job, Piece]] = []
        for job in ready:
            for _ in range(first.work.pieces_at_once):
                piece = _next_piece(job)
                if job.group != first.group or len(taken) == first.work.batch_size or piece is None:
                    break
                seconds = job.seconds(piece)
                padded = max(longest, seconds) * (len(taken) + 1)
                similar = SHORTEST * lead_seconds <= seconds <= LONGEST * lead_seconds
                if taken and not (similar and padded <= BATCH_SECONDS):
                    break
                longest = max(longest, seconds)
                taken.append((job, piece))
                job.waiting.popleft()
                job.served = now
        return taken


def _next_piece(job: Job) -> Piece | None:
    if job.waiting and isinstance(piece := job.waiting[0], Piece):
        return piece
    return None

"""The thread that owns the models.

It runs pieces of all recordings that wait in batches, and one step of all live streams together. Other threads read the
recordings. Results go to callbacks, which must not block.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np

from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.segments import Piece
from ds2_jax.recognition.streaming import Event, Stream
from ds2_jax.serving.scheduler import READ_AHEAD, Job, Scheduler, Waiting

logger = logging.getLogger(__package__)

NUM_READERS = 2


class LiveCommand(NamedTuple):
    """What a live stream asks for.

    Attributes:
        recogniser: the model of the stream.
        stream: the stream.
        kind: feed it, finish it, find the words of its open segment, or give it up.
        samples: [S] int16 to feed.
        done: gets the events or the words, or the error that ended the stream.
    """

    recogniser: Recogniser
    stream: Stream
    kind: Literal["feed", "finish", "words", "close"]
    samples: np.ndarray
    done: Callable[[Sequence[Event] | Sequence[Word] | Exception], None]


class ModelThread:
    """Runs the models for recordings and live streams.

    Args:
        observe_batch: is told the number of pieces of each batch.
        observe_seconds: is told the seconds of audio of each batch.
    """

    def __init__(
        self,
        observe_batch: Callable[[float], object] = lambda _: None,
        observe_seconds: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._observe_batch, self._observe_seconds = observe_batch, observe_seconds
        self._changed = threading.Condition()
        self._scheduler = Scheduler()
        self._live: list[LiveCommand] = []
        self._closing = False
        self._readers = ThreadPoolExecutor(NUM_READERS, "reader")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of recordings that are not finished."""
        with self._changed:
            return len(self._scheduler.jobs)

    def submit(self, job: Job) -> None:
        """Begins a recording."""
        with self._changed:
            self._scheduler.add(job)
            self._read_more(job)

    def cancel(self, job: Job) -> None:
        """Gives up a recording: its pieces are dropped. Does nothing if it has ended."""
        with self._changed:
            if job.cancelled:
                return
            job.cancelled = True
            job.waiting.clear()
            if not job.reading and not job.read:
                job.reading = True
                self._readers.submit(self._read, job)  # closes the file
            self._changed.notify()

    def command(self, command: LiveCommand) -> None:
        """Asks for something for a live stream. A stream's commands are done in order."""
        with self._changed:
            self._live.append(command)
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread. What waits is not done."""
        with self._changed:
            self._closing = True
            jobs = list(self._scheduler.jobs)
            self._changed.notify()
        for job in jobs:
            self.cancel(job)
        self._thread.join()
        self._readers.shutdown()

    def _read_more(self, job: Job) -> None:
        """Lets a reader go on with a recording of which few pieces wait. Needs the lock."""
        if not (job.reading or job.read or job.cancelled) and len(job.waiting) <= READ_AHEAD // 2:
            job.reading = True
            self._readers.submit(self._read, job)

    def _read(self, job: Job) -> None:
        """Reads pieces until enough wait."""
        while True:
            with self._changed:
                cancelled = job.cancelled
                if cancelled or len(job.waiting) >= READ_AHEAD:
                    job.reading = False
                    break
            event: Waiting
            try:
                event = next(job.pieces)
            except Exception as error:
                event = error
            with self._changed:
                if not job.cancelled:
                    job.waiting.append(event)
                if not isinstance(event, Piece):
                    job.read, job.reading = True, False
                    self._changed.notify()
                    return
                self._changed.notify()
        if cancelled:
            job.pieces.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or self._live or self._scheduler.has_work()):
                    self._changed.wait()
                if self._closing:
                    return
                commands = self._next_commands()
                batch = self._scheduler.take(time.monotonic())
                for job in {job for job, _ in batch.pieces}:
                    self._read_more(job)
            self._run_live(commands)
            for job in batch.dropped:
                _close(job)
            for job, end in batch.ends:
                _end(job, end)
            if batch.pieces:
                self._run_pieces(batch.pieces)

    def _next_commands(self) -> list[LiveCommand]:
        """Takes the next command of each live stream. Needs the lock."""
        taken: dict[Stream, LiveCommand] = {}
        rest = []
        for command in self._live:
            if command.stream in taken:
                rest.append(command)
            else:
                taken[command.stream] = command
        self._live = rest
        return list(taken.values())

    def _run_pieces(self, pieces: Sequence[tuple[Job, Piece]]) -> None:
        """Runs a batch. If it fails, each piece is run alone, so that one does not fail the others."""
        work = pieces[0][0].work
        try:
            results = work.run(pieces)
        except Exception as error:
            if len(pieces) > 1 and work.repeatable:
                for each in pieces:
                    self._run_pieces([each])
            else:
                for job in {job for job, _ in pieces}:
                    self._fail(job, error)
            return
        self._observe_batch(len(pieces))
        self._observe_seconds(sum(job.seconds(piece) for job, piece in pieces))
        for (job, piece), result in zip(pieces, results, strict=True):
            if not job.cancelled:
                try:
                    job.work.hand(piece, result)
                except Exception as error:
                    self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        if not job.cancelled:
            job.fail(error)
        self.cancel(job)

    def _run_live(self, commands: Sequence[LiveCommand]) -> None:
        """Runs the commands of several streams, those of one model together."""
        for recogniser in dict.fromkeys(command.recogniser for command in commands):
            own = [command for command in commands if command.recogniser is recogniser]
            for command in own:
                if command.kind == "close":
                    command.stream.close()
                    command.done([])
            for command in own:
                if command.kind == "words":
                    _run_together([command], lambda: {command.stream: command.stream.open_words()})  # noqa: B023
            fed = [command for command in own if command.kind == "feed"]
            _run_together(fed, lambda: recogniser.streams.feed({each.stream: each.samples for each in fed}))  # noqa: B023
            ended = [command for command in own if command.kind == "finish"]
            _run_together(ended, lambda: recogniser.streams.finish([each.stream for each in ended]))  # noqa: B023


def _run_together(
    commands: Iterable[LiveCommand], run: Callable[[], Mapping[Stream, list[Event] | Sequence[Word]]]
) -> None:
    if not commands:
        return
    try:
        events = run()
    except Exception as error:
        for command in commands:
            command.done(error)
        return
    for command in commands:
        command.done(events[command.stream])


def _end(job: Job, end: object) -> None:
    try:
        if isinstance(end, Exception):
            raise end
        job.work.end(end)  # type: ignore[arg-type]
    except Exception as error:
        job.fail(error)
    job.cancelled = True
    _close(job)


def _close(job: Job) -> None:
    try:
        job.work.close()
    except Exception:
        logger.exception("a recording could not be closed")

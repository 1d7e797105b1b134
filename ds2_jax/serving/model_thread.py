"""The threads that run the models.

One runs pieces of all recordings in batches. The other runs live streams, one step of all of them together, and short
recordings, so that neither waits for a long piece of a long recording: both threads then share the cores. Further
threads read the recordings. Results go to callbacks, which must not block.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.piece_outputs import End
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.segments import Piece
from ds2_jax.recognition.streaming import Event, Stream
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.scheduler import READ_AHEAD, Batch, Job, Scheduler, Waiting

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


class ModelThreads:
    """Runs the models for recordings and live streams.

    Args:
        metrics: what counts its work.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._changed = threading.Condition()
        self._scheduler = Scheduler()
        self._live: list[LiveCommand] = []
        self._closing = False
        self._readers = ThreadPoolExecutor(NUM_READERS, "reader")
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("recordings", self._run_recordings), ("live", self._run_live))
        ]
        for thread in self._threads:
            thread.start()

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
            if job.over:
                return
            job.over = True
            job.waiting.clear()
            if not job.reading and not job.read:
                job.reading = True
                self._readers.submit(self._read, job)  # closes the file
            self._changed.notify_all()

    def command(self, command: LiveCommand) -> None:
        """Asks for something for a live stream. A stream's commands are done in order."""
        with self._changed:
            self._live.append(command._replace(done=self._timed(command)))
            self._changed.notify_all()

    def _timed(self, command: LiveCommand) -> Callable[[Sequence[Event] | Sequence[Word] | Exception], None]:
        """Measures how long a command takes, with its waiting."""
        started = time.monotonic()

        def done(result: Sequence[Event] | Sequence[Word] | Exception) -> None:
            if kind := {"feed": "step", "finish": "final"}.get(command.kind):
                self._metrics.latency.labels(kind).observe(time.monotonic() - started)
            command.done(result)

        return done

    def close(self) -> None:
        """Ends the threads. What waits is not done."""
        with self._changed:
            self._closing = True
            jobs = list(self._scheduler.jobs)
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job)
        for thread in self._threads:
            thread.join()
        self._readers.shutdown()

    def _read_more(self, job: Job) -> None:
        """Lets a reader go on with a recording of which few pieces wait. Needs the lock."""
        if not (job.reading or job.read or job.over) and len(job.waiting) <= READ_AHEAD // 2:
            job.reading = True
            self._readers.submit(self._read, job)

    def _read(self, job: Job) -> None:
        """Reads pieces until enough wait."""
        ended = False
        while True:
            with self._changed:
                over = job.over
                if over or len(job.waiting) >= READ_AHEAD:
                    job.reading = False
                    break
            event: Waiting
            try:
                event = next(job.pieces)
            except Exception as error:
                event = error
            with self._changed:
                if not job.over:
                    job.waiting.append(event)
                ended = not isinstance(event, Piece)
                if ended:
                    job.read, job.reading = True, False
                self._changed.notify_all()
            if ended:
                break
        if over or ended:
            job.pieces.close()

    def _run_recordings(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or self._scheduler.has_work()):
                    self._changed.wait()
                if self._closing:
                    return
                batch = self._take(short=False)
            self._run_batch(batch)

    def _run_live(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or self._live or self._scheduler.has_work(short=True)):
                    self._changed.wait()
                if self._closing:
                    return
                commands = self._next_commands()
                batch = self._take(short=True)
            self._run_commands(commands)
            self._run_batch(batch)

    def _take(self, *, short: bool) -> Batch:
        """Takes a batch of recordings. Needs the lock."""
        now = time.monotonic()
        batch = self._scheduler.take(now, short=short)
        for job in {job for job, _ in batch.pieces}:
            self._read_more(job)
            if not job.begun:
                job.begun = True
                self._metrics.queueing.observe(now - job.created)
        return batch

    def _run_batch(self, batch: Batch) -> None:
        for job in batch.dropped:
            _close(job)
        _finish(batch.ends)
        if batch.pieces:
            self._run_pieces(batch.pieces)
            with self._changed:
                self._scheduler.done(batch)
                self._changed.notify_all()

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
        self._metrics.batches.observe(len(pieces))
        self._metrics.audio.inc(sum(job.seconds(piece) for job, piece in pieces))
        for (job, piece), result in zip(pieces, results, strict=True):
            if not job.over:
                try:
                    job.work.hand(piece, result)
                except Exception as error:
                    self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        if not job.over:
            job.fail(error)
        self.cancel(job)

    def _run_commands(self, commands: Sequence[LiveCommand]) -> None:
        """Runs the commands of several streams, those of one model together."""
        for recogniser in dict.fromkeys(command.recogniser for command in commands):
            own = [command for command in commands if command.recogniser is recogniser]
            for command in own:
                if command.kind == "close":
                    command.stream.close()
                    command.done([])
            for command in own:
                if command.kind == "words":
                    self._run_together([command], lambda: {command.stream: command.stream.open_words()})  # noqa: B023
            fed = [command for command in own if command.kind == "feed"]
            self._run_together(fed, lambda: recogniser.streams.feed({each.stream: each.samples for each in fed}))  # noqa: B023
            ended = [command for command in own if command.kind == "finish"]
            self._run_together(ended, lambda: recogniser.streams.finish([each.stream for each in ended]))  # noqa: B023

    def _run_together(
        self, commands: Sequence[LiveCommand], run: Callable[[], Mapping[Stream, list[Event] | Sequence[Word]]]
    ) -> None:
        """Runs commands of one kind. Measures before it answers, so that whoever has an answer finds it counted."""
        if not commands:
            return
        before = sum(each.stream.seconds for each in commands)
        try:
            events: Mapping[Stream, Any] = run()
        except Exception as error:
            events = {each.stream: error for each in commands}
        self._metrics.audio.inc(sum(each.stream.seconds for each in commands) - before)
        if commands[0].kind == "feed":
            self._metrics.steps.observe(len(commands))
        for command in commands:
            command.done(events[command.stream])


def _finish(ends: Sequence[tuple[Job, End | Exception]]) -> None:
    """Ends recordings; those of one model finish together."""
    results: dict[Job, End | Exception] = dict(ends)
    good = [job for job, end in ends if isinstance(end, End) and not end.error]
    for group in dict.fromkeys(job.group for job in good):
        own = [job for job in good if job.group is group]
        try:
            own[0].work.finish(own)
        except Exception as error:
            results |= dict.fromkeys(own, error)
    for job, end in results.items():
        _end(job, end)


def _end(job: Job, end: End | Exception) -> None:
    if isinstance(end, Exception):
        job.fail(end)
    else:
        try:
            job.work.end(end)
        except Exception as error:
            job.fail(error)
    job.over = True
    _close(job)


def _close(job: Job) -> None:
    try:
        job.work.close()
    except Exception:
        logger.exception("a recording could not be closed")

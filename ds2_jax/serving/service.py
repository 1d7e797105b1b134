"""What all protocols of the server share: its models, its bounds, and recognising an upload."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ds2_jax.audio.reading import read_blocks
from ds2_jax.audio.timeline import Timeline
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.model_thread import ModelThreads
from ds2_jax.serving.observe import record
from ds2_jax.serving.options import Limits
from ds2_jax.serving.recordings import Result, make_job
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

UPLOAD = Path("file")
"""The name of every upload in errors and transcripts."""


class TooLongError(InputError):
    """A recording is longer than the server takes."""


class GoneError(Exception):
    """The client has gone, so that nobody gets an answer."""


class Service:
    """The models of a server.

    Args:
        models: recognisers by name, at least one.
        folder: place of uploads; nobody else can look into it.
        limits: bounds of what clients may ask for.

    Attributes:
        started: when the service started, in seconds since 1970.
        draining: whether new requests are refused.
        num_requests: recordings that are being uploaded, wait, or are recognised.
        num_streams: live streams that are open.
    """

    def __init__(self, models: Mapping[str, Recogniser], folder: Path, limits: Limits) -> None:
        self.models, self.folder, self.limits = dict(models), folder, limits
        self.started = int(time.time())
        self.draining = False
        self.num_requests = self.num_streams = 0
        self.metrics = Metrics(lambda: self.num_requests)
        self.thread = ModelThreads(self.metrics)

    @property
    def default(self) -> str:
        """The name of the model for protocols whose clients name none."""
        return next(iter(self.models))

    def model(self, name: str | None) -> Recogniser:
        """Returns the model of a name, by default the first.

        Raises:
            RequestError: there is no such model.
        """
        name = self.default if name is None else name
        if name not in self.models:
            message = f"model must be one of {', '.join(self.models)}, got {name[:100]!r}. GET /v1/models lists them."
            raise RequestError(404, message, "model", "model_not_found")
        record().model = name
        return self.models[name]

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Counts a recording while it is uploaded, waits and is recognised.

        Raises:
            RequestError: there are too many.
        """
        if self.num_requests >= self.limits.max_requests:
            message = (
                f"The server must have fewer than {self.limits.max_requests} requests, got so many. Wait a little."
            )
            raise RequestError(429, message, code="queue_full")
        self.num_requests += 1
        try:
            yield
        finally:
            self.num_requests -= 1

    @contextlib.contextmanager
    def live_stream(self) -> Iterator[None]:
        """Counts a live stream while it is open.

        Raises:
            RequestError: there are too many.
        """
        if self.num_streams >= self.limits.max_streams:
            message = f"The server must have fewer than {self.limits.max_streams} streams, got so many. Wait a little."
            raise RequestError(429, message, code="streams_full")
        self.num_streams += 1
        self.metrics.streams.set(self.num_streams)
        try:
            yield
        finally:
            self.num_streams -= 1
            self.metrics.streams.set(self.num_streams)

    async def decoder(self, recogniser: Recogniser, words: list[str]) -> Decoder | None:
        """Makes the decoder for the hot words of a request; None if it has none.

        Raises:
            RequestError: the model cannot write a word.
        """
        if not words or not self.limits.hot_word_boost:
            return None
        boosts = dict.fromkeys(words, self.limits.hot_word_boost)
        try:
            return await run_in_threadpool(_ready_decoder, recogniser, boosts)
        except InputError as error:
            raise RequestError(400, str(error).replace("--hot-word", "keywords"), "keywords") from error

    async def recognise(
        self, recogniser: Recogniser, path: Path, decoder: Decoder | None = None
    ) -> AsyncGenerator[Segment | Transcript, None]:
        """Recognises an upload. Closing the generator drops what is left of it.

        Yields:
            Segments as they are recognised, then the transcript.

        Raises:
            RequestError: the recording cannot be read, or is too long.
        """
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Result] = asyncio.Queue()

        def emit(result: Result) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(results.put_nowait, result)

        rate, timeline = recogniser.config.features.sample_rate, Timeline()
        recording = NamedBlocks(UPLOAD, _blocks(path, rate, timeline, self.limits.max_seconds), timeline)
        started = time.monotonic()
        job = make_job(recogniser, recording, emit, started, decoder)
        self.thread.submit(job)
        try:
            while True:
                result = await results.get()
                if isinstance(result, Exception):
                    raise _as_request_error(result) from result
                if isinstance(result, Transcript):
                    self.metrics.latency.labels("file").observe(time.monotonic() - started)
                    own = record()
                    own.audio_seconds = result.duration
                    own.heard(result.text)
                    yield result
                    return
                yield result
        finally:
            self.thread.cancel(job)

    def prepare_hot_words(self) -> None:
        """Decodes with a hot word once, which compiles beam search or loads it from the cache."""
        for recogniser in self.models.values():
            letter = Alphabet.of(recogniser.config.data).characters.strip()[0]
            _ready_decoder(recogniser, {letter: self.limits.hot_word_boost})

    def close(self) -> None:
        """Ends the threads of the models."""
        self.thread.close()


async def unless_gone(request: Request, work: Callable[[], Any]) -> Any:
    """Awaits `work()`, and cancels it if the client goes away.

    Raises:
        GoneError: the client has gone.
    """
    task = asyncio.ensure_future(work())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError
    finally:
        for each in (task, gone):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await each


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ready_decoder(recogniser: Recogniser, boosts: Mapping[str, float]) -> Decoder:
    """Makes a decoder and decodes two frames, so that Numba compiles here and not in a thread of the models."""
    decoder = recogniser.decoder(boosts)
    num_labels = Alphabet.of(recogniser.config.data).size
    decoder(np.full((2, num_labels), -np.log(num_labels), np.float32))
    return decoder


def _blocks(path: Path, sample_rate: int, timeline: Timeline, longest: float) -> Generator[np.ndarray, None, None]:
    """Reads an upload; errors do not tell where it lies."""
    num_samples = 0
    try:
        with contextlib.closing(read_blocks(path, sample_rate, timeline)) as blocks:
            for block in blocks:
                num_samples += len(block)
                if num_samples > longest * sample_rate:
                    raise TooLongError(f"{UPLOAD} must last at most {longest:g} s, got more. Send it in parts.")
                yield block
    except TooLongError:
        raise
    except InputError as error:
        raise InputError(str(error).replace(str(path), str(UPLOAD))) from error
    if not num_samples:
        raise InputError(f"{UPLOAD} must hold sound, got none. Send a recording.")


def _as_request_error(error: Exception) -> Exception:
    if isinstance(error, TooLongError):
        return RequestError(413, str(error), "file", "too_long")
    if isinstance(error, InputError):
        return RequestError(400, str(error), "file", "unreadable_audio")
    return RequestError(500, "The server must recognise the file, got an error of its own. Its log has the reason.")

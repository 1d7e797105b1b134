"""What the protocols over WebSocket share: a socket and its bounds, and a stream that the server recognises."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import Event, FinalText
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.guard import accept
from ds2_jax.serving.model_thread import LiveCommand
from ds2_jax.serving.observe import record
from ds2_jax.serving.service import Service

logger = logging.getLogger(__package__)

SECONDS_AT_ONCE = 2.0
"""A longer message is recognised in parts, so that other streams get their turn."""
NO_SAMPLES = np.zeros(0, np.int16)
LAST_SECONDS, POLL_SECONDS = 2.0, 0.5
"""While the server stops, a talk ends after LAST_SECONDS without a message; that is checked every POLL_SECONDS."""
LONGEST_REASON = 123
"""Bytes of the reason with which a WebSocket may close (RFC 6455, section 5.5)."""
NORMAL, GOING_AWAY, UNSUPPORTED, POLICY, FAILED = 1000, 1001, 1003, 1008, 1011
"""Codes with which a WebSocket closes: the talk has ended, the server stops, a message is none of its protocol, the
client broke a rule, or the server failed."""


class ProtocolError(Exception):
    """A message that breaks the protocol, so that the socket closes. The text says which rule."""


class StreamError(Exception):
    """The threads of the models could not recognise a stream."""


class Talk(Protocol):
    """The server's side of a conversation with one client."""

    async def begin(self) -> None:
        """Sends what the protocol begins with."""

    async def hear(self, message: bytes | str) -> bool:
        """Answers a message; returns whether the talk goes on.

        Raises:
            ProtocolError: the message breaks the protocol.
            StreamError: the message could not be recognised.
            WebSocketDisconnect: the client has gone.
        """

    async def end(self) -> None:
        """Sends the words that are left, because the server stops. Raises what `hear` does."""

    def close(self) -> None:
        """Frees what it holds."""


class Line:
    """Sends answers to a client.

    Args:
        socket: the client's socket.
        patience: seconds after which a client that does not read is given up.
    """

    def __init__(self, socket: WebSocket, patience: float) -> None:
        self._socket, self._patience = socket, patience

    async def send(self, answer: dict[str, Any]) -> None:
        """Sends an answer as JSON.

        Raises:
            WebSocketDisconnect: the client has gone, or does not read.
        """
        # An unpaired surrogate, repeated from a client's message, is not valid UTF-8. JSON can write it as an escape.
        text = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
        try:
            await asyncio.wait_for(self._socket.send_text(text), self._patience)
        except (TimeoutError, WebSocketDisconnected) as error:
            raise WebSocketDisconnect(POLICY) from error

    async def close(self, code: int, reason: str = "") -> None:
        """Closes the socket, unless the client has gone. A long reason is cut."""
        reason = reason.encode()[:LONGEST_REASON].decode(errors="ignore")
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, WebSocketDisconnected):
            await asyncio.wait_for(self._socket.close(code, reason), self._patience)


async def converse(socket: WebSocket, protocol: str, make: Callable[[Service, Line], Talk]) -> None:
    """Serves a WebSocket as one of the live streams of the server.

    Args:
        socket: the client's socket.
        protocol: the name of the subprotocol.
        make: makes the talk; it may raise a RequestError, with which the client is refused.
    """
    service: Service = socket.app.state.service
    try:
        with service.live_stream():
            line = Line(socket, service.limits.idle_seconds)
            talk = make(service, line)
            await accept(socket, protocol)
            await _converse(socket, line, talk, service)
    except RequestError as error:
        await socket.send_denial_response(error.response())


async def _converse(socket: WebSocket, line: Line, talk: Talk, service: Service) -> None:
    try:
        await talk.begin()
        while True:
            message = await _next(socket, service)
            if message is None:
                await talk.end()
                await line.close(GOING_AWAY, "the server stops")
                return
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes")
            if not await talk.hear(message.get("text") or "" if content is None else content):
                await line.close(NORMAL)
                return
    except WebSocketDisconnect:
        return
    except TimeoutError:
        await line.close(POLICY, f"nothing came for {service.limits.idle_seconds:g} s")
    except ProtocolError as error:
        await line.close(UNSUPPORTED, str(error))
    except StreamError as error:
        await line.close(FAILED, str(error))
    finally:
        talk.close()


async def _next(socket: WebSocket, service: Service) -> Message | None:
    """Waits for a message; returns None if the server stops and nothing comes.

    Raises:
        TimeoutError: nothing came for as long as a client may be idle.
    """
    coming = asyncio.ensure_future(socket.receive())
    started, most = time.monotonic(), service.limits.idle_seconds
    try:
        while not (await asyncio.wait((coming,), timeout=min(POLL_SECONDS, most)))[0]:
            idle = time.monotonic() - started
            if service.draining and idle >= LAST_SECONDS:
                return None
            if idle >= most:
                raise TimeoutError
        return coming.result()
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await coming


class LiveStream:
    """A stream of one client. Its samples go through the threads of the models, together with those of other streams.

    Args:
        service: the service.
        recogniser: the model.
        sample_rate: sample rate of the samples to come, in Hz.
        endpoints: when a segment ends.
        decoder: decodes the segments, if not that of the recogniser.
    """

    def __init__(
        self,
        service: Service,
        recogniser: Recogniser,
        sample_rate: int,
        endpoints: Endpoints = ENDPOINTS,
        decoder: Decoder | None = None,
    ) -> None:
        self._thread, self._recogniser = service.thread, recogniser
        self._stream = recogniser.streams.open(sample_rate, endpoints, decoder)
        self._most = int(SECONDS_AT_ONCE * sample_rate)

    @property
    def seconds(self) -> float:
        """Seconds of the stream that have been recognised."""
        return self._stream.seconds

    async def feed(self, samples: np.ndarray) -> list[Event]:
        """Recognises the next samples [S] int16; returns what is new.

        Raises:
            StreamError: they could not be recognised. The stream must be closed.
        """
        events: list[Event] = []
        for start in range(0, len(samples), self._most):
            events += await self._ask("feed", samples[start : start + self._most])
        return events

    async def finish(self) -> list[Event]:
        """Ends the stream; returns and raises what `feed` does."""
        return list(await self._ask("finish", NO_SAMPLES))

    async def words(self) -> Sequence[Word]:
        """Finds the words of the open segment, with times from the start of the stream. Raises what `feed` does."""
        return await self._ask("words", NO_SAMPLES)

    def close(self) -> None:
        """Gives up the stream."""
        self._thread.command(LiveCommand(self._recogniser, self._stream, "close", NO_SAMPLES, lambda _: None))

    async def _ask(self, kind: Literal["feed", "finish", "words"], samples: np.ndarray) -> Sequence[Any]:
        """Lets the threads of the models do something."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Any]] = loop.create_future()

        def done(result: Sequence[Any] | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, answer, result)

        before = self._stream.seconds
        self._thread.command(LiveCommand(self._recogniser, self._stream, kind, samples, done))
        result = await answer
        own = record()
        own.audio_seconds += self._stream.seconds - before
        for event in result:
            if isinstance(event, FinalText):
                own.heard(event.text)
        return result


def _resolve(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():  # the client has gone
        return
    if isinstance(result, Exception):
        logger.error("a live stream failed", exc_info=result)
        answer.set_exception(StreamError("the server could not recognise the stream"))
    else:
        answer.set_result(result)

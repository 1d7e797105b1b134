"""The WebSocket protocol of vosk-server.

The client sends int16 samples in binary messages and gets one answer to each: {"partial": TEXT}, or the words of a
segment that has ended. {"config": {...}} gets no answer. {"eof": 1} gets the last words, then the server closes.
{"reset": 1} gets the last words, and the stream goes on.

Source: alphacep/vosk-server, websocket/asr_server.py.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import struct
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import Event, FinalText, PartialText, Stream
from ds2_jax.recognition.transcript import Segment
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.guard import accept
from ds2_jax.serving.model_thread import LiveCommand
from ds2_jax.serving.service import Service
from ds2_jax.system.errors import NO_JSON

logger = logging.getLogger(__package__)

DEFAULT_RATE = 8000
"""Hz, as in vosk-server."""
SECONDS_AT_ONCE = 2.0
"""A longer message is recognised in parts, so that other streams get their turn."""
NO_SAMPLES = np.zeros(0, np.int16)
POLICY, UNSUPPORTED = 1008, 1003
"""Codes with which a WebSocket closes: the client broke a rule, or sent what is no message of this protocol."""


@dataclasses.dataclass
class Settings:
    """What the client configured."""

    sample_rate: int | None = None
    words: bool = True
    max_alternatives: int = 0
    model: str | None = None


class ProtocolError(Exception):
    """A message that breaks the protocol. The text says which rule."""


async def vosk(socket: WebSocket) -> None:
    """Serves a live stream."""
    service: Service = socket.app.state.service
    try:
        with service.live_stream():
            await accept(socket, "vosk")
            await _serve(socket, service)
    except RequestError as error:
        await socket.send_denial_response(error.response())


async def _serve(socket: WebSocket, service: Service) -> None:
    live = Live(service)
    try:
        while True:
            message = await asyncio.wait_for(socket.receive(), service.limits.idle_seconds)
            if message["type"] == "websocket.disconnect":
                return
            if (samples := message.get("bytes")) is not None:
                await socket.send_text(_dumped(await live.hear(samples)))
            elif await _command(socket, live, message.get("text") or ""):
                return
    except (WebSocketDisconnect, RuntimeError):  # Starlette raises the second if a client goes while it is answered
        return
    except TimeoutError:
        await _close(socket, POLICY, f"nothing came for {service.limits.idle_seconds:g} s")
    except ProtocolError as error:
        await _close(socket, UNSUPPORTED, str(error))
    finally:
        live.close()


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason)


async def _command(socket: WebSocket, live: "Live", text: str) -> bool:
    """Does what a text message says; returns whether the stream has ended."""
    try:
        message = json.loads(text)
    except NO_JSON as error:
        raise ProtocolError("text messages must be JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("text messages must be JSON objects")
    if "config" in message:
        live.configure(message["config"])
    elif "eof" in message:
        await socket.send_text(_dumped(await live.finish()))
        await _close(socket, 1000, "")
        return True
    elif "reset" in message:
        await socket.send_text(_dumped(await live.finish()))
    return False


def _dumped(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False)


class Live:
    """The stream of a client."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = Settings()
        self._recogniser: Recogniser | None = None
        self._stream: Stream | None = None
        self._rate = DEFAULT_RATE
        self._offset = 0.0
        self._partial = ""
        self._rest = b""
        self._begun = False

    def configure(self, config: Any) -> None:
        """Takes settings. Rate and model count only before the first samples.

        Raises:
            ProtocolError: a value is wrong.
        """
        if not isinstance(config, dict):
            raise ProtocolError("config must be an object")
        settings = self._settings
        if "sample_rate" in config:
            rate = config["sample_rate"]
            if not isinstance(rate, int | float) or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
                raise ProtocolError(f"sample_rate must be {MIN_RATE} to {MAX_RATE}")
            settings.sample_rate = int(rate)
        if isinstance(name := config.get("model"), str):
            if name not in self._service.models:
                raise ProtocolError("model must be the name of a model")
            settings.model = name
        settings.words = bool(config.get("words", settings.words))
        if isinstance(most := config.get("max_alternatives"), int):
            settings.max_alternatives = max(0, most)

    async def hear(self, content: bytes) -> dict[str, Any]:
        """Recognises samples; returns the answer."""
        if not self._begun:
            content, rate = _without_header(content)
            self._rate = self._settings.sample_rate or rate or DEFAULT_RATE
            self._recogniser = self._service.model(self._settings.model)
            self._begun = True
        content = self._rest + content
        whole = len(content) // 2 * 2
        samples, self._rest = np.frombuffer(content[:whole], "<i2"), content[whole:]
        size = int(SECONDS_AT_ONCE * self._rate)
        finals: list[Segment] = []
        for start in range(0, len(samples), size):
            finals += self._noted(await self._ask("feed", samples[start : start + size]))
        if finals:
            return self._result(finals)
        return {"partial": self._partial}

    async def finish(self) -> dict[str, Any]:
        """Ends the stream; returns its last words. Samples that follow begin another, whose times go on."""
        if self._stream is None:
            return self._result([])
        answer = self._result(self._noted(await self._ask("finish", NO_SAMPLES)))
        self._offset += self._stream.seconds
        self._stream, self._partial = None, ""
        return answer

    def close(self) -> None:
        """Gives up the stream."""
        if self._stream is not None:
            assert self._recogniser is not None
            close = LiveCommand(self._recogniser, self._stream, "close", NO_SAMPLES, lambda _: None)
            self._service.thread.command(close)

    async def _ask(self, kind: Literal["feed", "finish"], samples: np.ndarray) -> Sequence[Event]:
        """Lets the thread of the models do something."""
        assert self._recogniser is not None
        if self._stream is None:
            self._stream = self._recogniser.stream(self._rate)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Event]] = loop.create_future()

        def done(result: Sequence[Event] | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_resolve, answer, result)

        self._service.thread.command(LiveCommand(self._recogniser, self._stream, kind, samples, done))
        return await answer

    def _noted(self, events: Sequence[Event]) -> list[Segment]:
        """Keeps the text of the open segment; returns the segments that have ended."""
        finals = []
        for event in events:
            if isinstance(event, FinalText):
                finals.append(event.segment)
                self._partial = ""
            elif isinstance(event, PartialText):
                self._partial = event.final + event.open
        return finals

    def _result(self, finals: Sequence[Segment]) -> dict[str, Any]:
        """Writes segments that have ended."""
        if most := self._settings.max_alternatives:
            readings = [self._alternative(each, with_confidence=True) for each in _combined(finals, most)]
            return {"alternatives": readings}
        [best] = _combined(finals, 1)
        return self._alternative(best, with_confidence=False)

    def _alternative(self, segments: Sequence[tuple[Segment, int]], *, with_confidence: bool) -> dict[str, Any]:
        readings = [segment.readings[index] for segment, index in segments]
        answer: dict[str, Any] = {}
        if with_confidence:
            answer["confidence"] = round(min((each.confidence for each in readings), default=1.0), 4)
        words = [word for reading in readings for word in reading.words]
        if self._settings.words and words:
            answer["result"] = [
                ({} if with_confidence else {"conf": round(word.confidence, 4)})
                | {
                    "start": round(word.start + self._offset, 3),
                    "end": round(word.end + self._offset, 3),
                    "word": word.text,
                }
                for word in words
            ]
        answer["text"] = " ".join(each.text for each in readings if each.text)
        return answer


def _combined(finals: Sequence[Segment], most: int) -> list[list[tuple[Segment, int]]]:
    """Lists readings of all segments together: the best of each, then the second best of the first of them, ..."""
    best = [(segment, 0) for segment in finals]
    if len(finals) != 1:
        return [best]
    return [[(finals[0], index)] for index in range(min(most, len(finals[0].readings)))]


def _resolve(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():  # the client has gone
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _without_header(content: bytes) -> tuple[bytes, int | None]:
    """Removes the header of a WAV file, which some clients send; returns its rate in Hz, too."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content, None
    rate, position = None, 12
    while position + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if name == b"data":
            return content[position:], rate
        if name == b"fmt " and position + 8 <= len(content):
            [rate] = struct.unpack_from("<I", content, position + 4)
        position += size + size % 2
    return b"", rate

"""The WebSocket protocol of vosk-server.

The client sends int16 samples in binary messages and gets one answer to each: {"partial": TEXT}, or the words of a
segment that has ended. {"config": {...}} gets no answer. {"eof": 1} gets the last words, then the server closes.
{"reset": 1} gets the last words, and the stream goes on.

Differs: a partial answer also has "stable", the beginning of the text that will not change. "keywords" of config are
hot words. "phrase_list", a closed vocabulary in vosk-server, gives hot words too: other words can still be recognised.
Phrases that the model cannot write, such as "[unk]", are ignored.

Source: alphacep/vosk-server, websocket/asr_server.py.
"""

import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from ds2_jax.audio import pcm
from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import Event, FinalText, PartialText
from ds2_jax.recognition.transcript import Segment
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.hot_words import LONGEST, MOST, hot_words
from ds2_jax.serving.service import Service
from ds2_jax.serving.sockets import Line, LiveStream, ProtocolError, converse
from ds2_jax.system.errors import NO_JSON, InputError
from ds2_jax.text.alphabet import Alphabet

DEFAULT_RATE = 8000
"""Hz, as in vosk-server."""


@dataclasses.dataclass
class Settings:
    """What the client configured."""

    sample_rate: int | None = None
    words: bool = True
    partial_words: bool = False
    max_alternatives: int = 0
    model: str | None = None
    keywords: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()


async def vosk(socket: WebSocket) -> None:
    """Serves a live stream."""
    await converse(socket, "vosk", VoskTalk)


class VoskPort:
    """Lets every WebSocket of one port speak vosk's protocol: clients of vosk-server give no path.

    Args:
        app: the application.
        port: the port.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection (ASGI)."""
        if scope["type"] == "websocket" and scope["server"][1] == self._port:
            scope = {**scope, "path": "/vosk"}
        await self._app(scope, receive, send)


class VoskTalk:
    """The stream of a client; see `sockets.Talk`.

    Args:
        service: the models.
        line: where the answers go.
    """

    def __init__(self, service: Service, line: Line) -> None:
        self._service, self._line = service, line
        self._settings = Settings()
        self._recogniser: Recogniser | None = None
        self._decoder: Decoder | None = None
        self._stream: LiveStream | None = None
        self._rate = DEFAULT_RATE
        self._offset = 0.0
        self._partial = ("", "")
        self._rest = b""

    async def begin(self) -> None:
        """See `sockets.Talk`."""

    async def hear(self, message: bytes | str) -> bool:
        """See `sockets.Talk`."""
        if isinstance(message, bytes):
            await self._line.send(await self._heard(message))
            return True
        command = _parsed(message)
        if "config" in command:
            self._configure(command["config"])
        elif "eof" in command or "reset" in command:
            await self._line.send(await self._ended())
        return "eof" not in command

    async def end(self) -> None:
        """See `sockets.Talk`."""
        if self._stream is not None:
            await self._line.send(await self._ended())

    def close(self) -> None:
        """See `sockets.Talk`."""
        if self._stream is not None:
            self._stream.close()

    def _configure(self, config: Any) -> None:
        """Takes settings. Rate, model and hot words count only before the first samples."""
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
        settings.partial_words = bool(config.get("partial_words", settings.partial_words))
        if isinstance(most := config.get("max_alternatives"), int):
            settings.max_alternatives = max(0, most)
        settings.keywords = _texts(config, "keywords", settings.keywords)
        settings.phrases = _texts(config, "phrase_list", settings.phrases)

    async def _open(self, content: bytes) -> bytes:
        """Opens the model for the first samples; returns them without a header."""
        content, rate = _without_header(content)
        self._rate = self._settings.sample_rate or rate or DEFAULT_RATE
        self._recogniser = self._service.model(self._settings.model)
        alphabet = Alphabet.of(self._recogniser.config.data)
        phrases = [each for each in self._settings.phrases if not alphabet.unknown(each)]
        try:
            words = hot_words("", [*self._settings.keywords, *phrases], alphabet)
            self._decoder = await self._service.decoder(self._recogniser, words)
        except RequestError as error:
            rule = f"be at most {MOST} words of at most {LONGEST} characters that the model can write"
            raise ProtocolError(f"keywords must {rule}") from error
        return content

    async def _heard(self, content: bytes) -> dict[str, Any]:
        """Recognises samples; returns the answer."""
        if self._recogniser is None:
            content = await self._open(content)
        assert self._recogniser is not None
        if self._stream is None:
            self._stream = LiveStream(self._service, self._recogniser, self._rate, decoder=self._decoder)
        content = self._rest + content
        whole = len(content) // 2 * 2
        self._rest = content[whole:]
        if finals := self._noted(await self._stream.feed(np.frombuffer(content[:whole], "<i2"))):
            return self._result(finals)
        final, open_ = self._partial
        answer: dict[str, Any] = {"partial": final + open_, "stable": final}
        if self._settings.partial_words and answer["partial"]:
            words = await self._stream.words()
            answer["partial"] = " ".join(word.text for word in words)
            answer["partial_result"] = self._words(words, with_confidence=True)
        return answer

    async def _ended(self) -> dict[str, Any]:
        """Ends the stream; returns its last words. Samples that follow begin another, whose times go on."""
        if self._stream is None:
            return self._result([])
        answer = self._result(self._noted(await self._stream.finish()))
        self._offset += self._stream.seconds
        self._stream, self._partial = None, ("", "")
        return answer

    def _noted(self, events: Sequence[Event]) -> list[Segment]:
        """Keeps the text of the open segment; returns the segments that have ended."""
        finals = []
        for event in events:
            if isinstance(event, FinalText):
                finals.append(event.segment)
                self._partial = ("", "")
            elif isinstance(event, PartialText):
                self._partial = (event.final, event.open)
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
            answer["result"] = self._words(words, with_confidence=not with_confidence)
        answer["text"] = " ".join(each.text for each in readings if each.text)
        return answer

    def _words(self, words: Sequence[Word], *, with_confidence: bool) -> list[dict[str, Any]]:
        return [
            ({"conf": round(word.confidence, 4)} if with_confidence else {})
            | {
                "start": round(word.start + self._offset, 3),
                "end": round(word.end + self._offset, 3),
                "word": word.text,
            }
            for word in words
        ]


def _parsed(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except NO_JSON as error:
        raise ProtocolError("text messages must be JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("text messages must be JSON objects")
    return message


def _texts(config: dict[str, Any], name: str, before: tuple[str, ...]) -> tuple[str, ...]:
    texts = config.get(name, before)
    if not (isinstance(texts, list | tuple) and all(isinstance(each, str) for each in texts)):
        raise ProtocolError(f"{name} must be a list of texts")
    return tuple(texts)


def _combined(finals: Sequence[Segment], most: int) -> list[list[tuple[Segment, int]]]:
    """Lists readings of all segments together: the best of each, then the second best of the first of them, ..."""
    best = [(segment, 0) for segment in finals]
    if len(finals) != 1:
        return [best]
    return [[(finals[0], index)] for index in range(min(most, len(finals[0].readings)))]


def _without_header(content: bytes) -> tuple[bytes, int | None]:
    """Removes the header of a WAV file, which some clients send; returns its rate in Hz, too."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content, None
    file = io.BytesIO(content[12:])
    try:
        rate, channels, coding = pcm.read_header(file, "WAV")
    except InputError as error:
        raise ProtocolError(str(error)) from error
    if (channels, coding) != (1, "s16le"):
        raise ProtocolError("WAV must hold samples of 16 bits in one channel")
    return file.read(), rate

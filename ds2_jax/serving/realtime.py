"""OpenAI's Realtime transcription: WebSocket /v1/realtime.

The client appends audio. A turn ends when the client commits it, or, with server_vad, at a pause; then the server gives
its whole transcript. Before, it sends text that will not change, as deltas, which are never taken back. An error leaves
the session open.

Source: OpenAI's Realtime API, https://platform.openai.com/docs/api-reference/realtime.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.websockets import WebSocket

from ds2_jax.audio.g711 import decode_alaw, decode_ulaw
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Word
from ds2_jax.recognition.streaming import Event, FinalText, PartialText
from ds2_jax.serving.errors import RequestError, shown, wrong
from ds2_jax.serving.hot_words import hot_words
from ds2_jax.serving.realtime_settings import Settings
from ds2_jax.serving.service import Service
from ds2_jax.serving.sockets import Line, LiveStream, StreamError, converse
from ds2_jax.serving.transcripts import logprobs
from ds2_jax.system.errors import NO_JSON
from ds2_jax.text.alphabet import Alphabet

PROTOCOL, BETA_PROTOCOL = "realtime", "openai-beta.realtime-v1"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
UPDATES = ("session.update", "transcription_session.update")


async def realtime(socket: WebSocket) -> None:
    """Serves a session. The query may have a model; intent=transcription is the only intent, and may be left out."""
    beta = "realtime=v1" in socket.headers.get("openai-beta", "") or BETA_PROTOCOL in socket.scope["subprotocols"]
    model = socket.query_params.get("model")
    await converse(socket, PROTOCOL, lambda service, line: Session(service, line, model, beta=beta))


class Turn:
    """A turn whose text is on its way.

    Attributes:
        item: the name of its item.
        text: the text of its segments that have ended.
        words: their words.
        started: whether the client has been told that speech began.
    """

    def __init__(self) -> None:
        self.item = _name("item")
        self.text = ""
        self.words: list[Word] = []
        self.started = False
        self._sent = ""  # of the open segment
        self._any_sent = False

    def delta(self, final: str) -> str:
        """Returns what has not been sent of the open segment's text that will not change."""
        new = final[len(self._sent) :]
        if new and not self._sent and self._any_sent:
            new = f" {new}"
        self._sent, self._any_sent = final, self._any_sent or bool(new)
        return new

    def add(self, segment: FinalText) -> None:
        """Adds a segment that has ended."""
        self.text = f"{self.text} {segment.text}" if self.text else segment.text
        self.words += segment.words
        self._sent = ""


class Session:
    """The session of a client; see `sockets.Talk`.

    Args:
        service: the models.
        line: where the events go.
        model: the name of the model; None for the first.
        beta: whether to use the names of the beta.

    Raises:
        RequestError: there is no such model.
    """

    def __init__(self, service: Service, line: Line, model: str | None, *, beta: bool) -> None:
        self._service, self._line, self._beta = service, line, beta
        self._recogniser = service.model(model)
        self._settings = Settings(service.default if model is None else model)
        self._decoder: Decoder | None = None
        self._stream: LiveStream | None = None
        self._name = _name("sess")
        self._turn = Turn()
        self._previous_item: str | None = None
        self._heard = self._stream_start = self._turn_start = 0.0  # seconds of all audio of the session

    async def begin(self) -> None:
        """See `sockets.Talk`."""
        await self._show_settings("created")

    async def hear(self, message: bytes | str) -> bool:
        """See `sockets.Talk`."""
        event_id = None
        try:
            event = _parsed(message)
            event_id = given if isinstance(given := event.get("event_id"), str) else None
            await self._do(event)
        except RequestError as error:
            await self._send("error", error=error.body["error"] | {"event_id": event_id})
        except StreamError:
            await self._fail_turn()
        return True

    async def end(self) -> None:
        """See `sockets.Talk`."""
        if self._settings.vad is not None:
            await self._end_stream(detect=True)
        elif self._heard > self._turn_start:
            await self._commit()

    def close(self) -> None:
        """See `sockets.Talk`."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _do(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in UPDATES:
            self._beta = self._beta or kind == UPDATES[1]
            await self._update(event.get("session"))
        elif kind == "input_audio_buffer.append":
            await self._append(self._samples(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            await self._commit()
        elif kind == "input_audio_buffer.clear":
            self.close()
            self._turn, self._turn_start = Turn(), self._heard
            await self._send("input_audio_buffer.cleared")
        else:
            known = ", ".join((*UPDATES, *(f"input_audio_buffer.{each}" for each in ("append", "commit", "clear"))))
            raise wrong("type", f"be one of {known}", shown(kind), "This server only transcribes.")

    async def _update(self, session: Any) -> None:
        """Takes settings, which count for the audio that comes next."""
        settings = self._settings.updated(session)
        recogniser = self._service.model(settings.model)
        words = hot_words(settings.prompt, settings.keywords, Alphabet.of(recogniser.config.data))
        decoder = await self._service.decoder(recogniser, words)
        if settings != self._settings:
            await self._end_stream(detect=self._settings.vad is not None)
        self._settings, self._recogniser, self._decoder = settings, recogniser, decoder
        await self._show_settings("updated")

    def _samples(self, audio: Any) -> np.ndarray:
        """Decodes audio; returns [S] int16."""
        try:
            content = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise wrong("audio", "be base64", shown(audio), "Encode the bytes of the samples.") from error
        if self._settings.audio_format == "audio/pcmu":
            return decode_ulaw(content)
        if self._settings.audio_format == "audio/pcma":
            return decode_alaw(content)
        if len(content) % 2:
            raise wrong("audio", "hold samples of 2 bytes", f"{len(content)} bytes", "Send whole samples.")
        return np.frombuffer(content, "<i2")

    async def _append(self, samples: np.ndarray) -> None:
        detect, longest = self._settings.vad is not None, self._service.limits.max_seconds
        seconds = len(samples) / self._settings.rate
        if not detect and self._heard - self._turn_start + seconds > longest:
            rule = f"have at most {longest:g} s in a turn"
            raise RequestError(400, f"audio must {rule}, got more. Commit the turn.", "audio", "turn_too_long")
        if self._stream is None:
            settings = self._settings
            self._stream = LiveStream(self._service, self._recogniser, settings.rate, settings.endpoints, self._decoder)
            self._stream_start = self._heard
        self._heard += seconds
        await self._note(await self._stream.feed(samples), detect=detect)

    async def _commit(self) -> None:
        if self._heard <= self._turn_start:
            message = "The buffer must hold audio to be committed, got none. Append some."
            raise RequestError(400, message, code="input_audio_buffer_commit_empty")
        await self._end_stream(detect=False)
        await self._complete(self._heard)

    async def _end_stream(self, *, detect: bool) -> None:
        """Recognises what is left. Audio that follows begins another stream."""
        if (stream := self._stream) is not None:
            events = await stream.finish()
            self._stream = None
            await self._note(events, detect=detect)

    async def _note(self, events: Sequence[Event], *, detect: bool) -> None:
        """Tells what is new.

        Args:
            events: what is new.
            detect: whether a segment is a turn.
        """
        for event in events:
            final = event.text if isinstance(event, FinalText) else event.final
            any_text = bool(final or (isinstance(event, PartialText) and event.open))
            time = self._stream_start + event.time
            if detect and any_text and not self._turn.started:
                await self._start_turn(time)
            if delta := self._turn.delta(final):
                await self._send_of_item(f"{TRANSCRIPTION}.delta", content_index=0, delta=delta)
            if isinstance(event, FinalText):
                self._turn.add(event)
                time = self._stream_start + event.segment.end
            if detect and self._turn.started and (isinstance(event, FinalText) or not any_text):
                await self._send_of_item("input_audio_buffer.speech_stopped", audio_end_ms=round(time * 1000))
                await self._complete(time)

    async def _start_turn(self, time: float) -> None:
        assert self._settings.vad is not None
        self._turn.started = True
        self._turn_start = max(self._turn_start, time - self._settings.vad.prefix_padding_ms / 1000)
        start = round(self._turn_start * 1000)
        await self._send_of_item("input_audio_buffer.speech_started", audio_start_ms=start)

    async def _complete(self, end: float) -> None:
        """Gives the transcript of the turn, which ends at `end`, and begins another."""
        seconds = await self._commit_item(end)
        turn, self._turn = self._turn, Turn()
        completed: dict[str, Any] = {"item_id": turn.item, "content_index": 0, "transcript": turn.text}
        completed["usage"] = {"type": "duration", "seconds": round(seconds, 3)}
        if self._settings.logprobs:
            completed["logprobs"] = logprobs(turn.words)
        await self._send(f"{TRANSCRIPTION}.completed", **completed)

    async def _fail_turn(self) -> None:
        """Ends the turn without a transcript, because the stream failed."""
        self.close()
        await self._commit_item(self._heard)
        turn, self._turn = self._turn, Turn()
        error = RequestError(
            500, "The server must recognise the audio, got an error of its own. Its log has the reason."
        )
        await self._send(f"{TRANSCRIPTION}.failed", item_id=turn.item, content_index=0, error=error.body["error"])

    async def _commit_item(self, end: float) -> float:
        """Tells that the turn is an item now; returns its length in seconds."""
        previous = self._previous_item
        await self._send_of_item("input_audio_buffer.committed", previous_item_id=previous)
        item = {"id": self._turn.item, "object": "realtime.item", "type": "message", "status": "completed"}
        content = [{"type": "input_audio", "transcript": None}]
        for kind in ("created",) if self._beta else ("added", "done"):
            event = f"conversation.item.{kind}"
            await self._send(event, previous_item_id=previous, item=item | {"role": "user", "content": content})
        seconds = end - self._turn_start
        self._previous_item, self._turn_start = self._turn.item, end
        return seconds

    async def _show_settings(self, change: str) -> None:
        kind = f"transcription_session.{change}" if self._beta else f"session.{change}"
        await self._send(kind, session=self._settings.described(self._name, beta=self._beta))

    async def _send_of_item(self, kind: str, **content: Any) -> None:
        await self._send(kind, item_id=self._turn.item, **content)

    async def _send(self, kind: str, **content: Any) -> None:
        await self._line.send({"type": kind, "event_id": _name("event"), **content})


def _parsed(message: bytes | str) -> dict[str, Any]:
    try:
        event = None if isinstance(message, bytes) else json.loads(message)
    except NO_JSON:
        event = None
    if not isinstance(event, dict):
        raise RequestError(400, "Messages must be JSON objects, got another. Correct it.", code="invalid_json")
    return event


def _name(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"

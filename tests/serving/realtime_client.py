"""A client of OpenAI's Realtime transcription, and what it should get."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from tests.serving.servers import Running, talk

RATE = 24_000
DELTA, COMPLETED, FAILED = (
    f"conversation.item.input_audio_transcription.{name}" for name in ("delta", "completed", "failed")
)
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", COMPLETED]
Message = dict[str, Any]


class Client:
    """A client that has read the first event."""

    def __init__(self, socket: Connection) -> None:
        self.socket = socket
        self.first = self.receive()

    def receive(self) -> Message:
        event: Message = json.loads(self.socket.recv(timeout=30))
        assert event["event_id"].startswith("event_")
        return event

    def until(self, kind: str) -> list[Message]:
        """Receives events up to one of a kind."""
        events = [self.receive()]
        while events[-1]["type"] != kind:
            assert events[-1]["type"] != "error", events[-1]
            events.append(self.receive())
        return events

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def update(self, **inputs: Any) -> Message:
        """Changes settings; returns those in effect."""
        include = inputs.pop("include", None)
        session = {"type": "transcription", "audio": {"input": inputs}} | ({"include": include} if include else {})
        self.send("session.update", session=session)
        session = self.until("session.updated")[-1]["session"]
        assert session["audio"]["input"]["noise_reduction"] is None
        inputs_in_effect: Message = session["audio"]["input"] | {"include": session["include"]}
        return inputs_in_effect

    def append(self, content: bytes, size: int = 9600) -> None:
        for start in range(0, len(content), size):
            self.send("input_audio_buffer.append", audio=base64.b64encode(content[start : start + size]).decode())

    def committed(self) -> list[Message]:
        self.send("input_audio_buffer.commit")
        return self.until(COMPLETED)

    def error(self) -> Message:
        event = self.receive()
        assert event["type"] == "error"
        assert event["error"].keys() == {"type", "message", "code", "param", "event_id"}
        error: Message = event["error"]
        return error


def connected(server: Running, query: str = "?intent=transcription", **options: Any) -> Connection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/realtime{query}", **options)


def pcm(seconds: float, seed: int) -> bytes:
    samples = np.interp(np.arange(0, seconds, 1 / RATE), np.arange(0, seconds, 1 / 16_000), talk(seconds, seed))
    return (samples * 32767).astype("<i2").tobytes()


def finals(
    recogniser: Recogniser,
    samples: bytes | np.ndarray,
    endpoints: Endpoints = ENDPOINTS,
    rate: int = RATE,
    decoder: Decoder | None = None,
) -> list[FinalText]:
    stream = recogniser.streams.open(rate, endpoints, decoder)
    samples = np.frombuffer(samples, "<i2") if isinstance(samples, bytes) else samples
    return [event for event in stream.feed(samples) + stream.finish() if isinstance(event, FinalText)]


def text_of(segments: list[FinalText]) -> str:
    return " ".join(each.text for each in segments)


def deltas(events: list[Message]) -> list[str]:
    return [each["delta"] for each in events if each["type"] == DELTA]


def updating(**inputs: Any) -> Message:
    return {"type": "session.update", "session": {"audio": {"input": inputs}}}


def refused(server: Running, query: str = "", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as error, connected(server, query, **options):
        pass
    return error.value.response.status_code


def closed(client: Client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as error:
        client.until("the end")
    assert error.value.rcvd is not None
    return error.value.rcvd.code, error.value.rcvd.reason

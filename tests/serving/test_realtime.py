"""OpenAI's Realtime transcription, message by message."""

import base64
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from ds2_jax.audio.g711 import decode_alaw, decode_ulaw
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.serving.options import Limits
from tests.serving.servers import Running, running, talk

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


@pytest.fixture(scope="module")
def server(
    recogniser: Recogniser, live: Recogniser, pausing: Recogniser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    limits = Limits(hot_word_boost=30.0)  # the drawn weights are sure of what they write
    models = {"live": live, "whole": recogniser, "pausing": pausing}
    with running(models, tmp_path_factory.mktemp("uploads"), limits) as server:
        yield server
        server.wait_until_idle()


def connected(server: Running, query: str = "?intent=transcription", **options: Any) -> Connection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/realtime{query}", **options)


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with connected(server) as connection:
        yield Client(connection)


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


def test_a_session_begins_with_the_settings_in_effect(client: Client) -> None:
    assert client.first["type"] == "session.created"
    session = client.first["session"]
    assert session["id"].startswith("sess_")
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "noise_reduction": None,
        "transcription": {"model": "live", "prompt": "", "keywords": []},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500, "prefix_padding_ms": 300},
    }


@pytest.mark.parametrize("name", ["live", "whole"])
def test_a_committed_turn_has_the_text_of_a_stream(client: Client, name: str, request: pytest.FixtureRequest) -> None:
    model: Recogniser = request.getfixturevalue("recogniser" if name == "whole" else name)
    assert client.update(turn_detection=None, transcription={"model": name})["turn_detection"] is None
    previous = None
    for seed, seconds in ((3, 7.0), (1, 2.0)):
        content = pcm(seconds, seed)
        client.append(content)
        events = client.committed()
        completed = events[-1]
        assert completed["transcript"] == text_of(finals(model, content)) == "".join(deltas(events)) != ""
        assert completed["usage"] == {"type": "duration", "seconds": seconds}
        assert [each["type"] for each in events if each["type"] != DELTA] == COMMITTED
        assert {each["item_id"] for each in events if "item_id" in each} == {completed["item_id"]}
        committed, added, done = (each for each in events if "previous_item_id" in each)
        assert committed["previous_item_id"] == added["previous_item_id"] == done["previous_item_id"] == previous
        assert added["item"] == done["item"]
        assert previous != added["item"]["id"] == completed["item_id"]
        previous = completed["item_id"]


def test_text_that_will_not_change_comes_before_the_commit(client: Client, live: Recogniser) -> None:
    content = pcm(3.0, 1)
    client.update(turn_detection=None)
    client.append(content)
    early = "".join(each["delta"] for each in client.until(DELTA))
    assert text_of(finals(live, content)).startswith(early)


def test_an_update_that_changes_nothing_does_not_cut(client: Client, live: Recogniser) -> None:
    content = pcm(4.0, 1)
    client.update(turn_detection=None)
    for half in (content[: 2 * RATE * 2], content[2 * RATE * 2 :]):
        client.append(half)
        client.update(turn_detection=None)
    client.send("input_audio_buffer.commit")
    assert client.until(COMPLETED)[-1]["transcript"] == text_of(finals(live, content))


def test_server_vad_ends_turns_at_pauses(client: Client, pausing: Recogniser) -> None:
    content = pcm(14.0, 3)
    vad = {"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 700, "prefix_padding_ms": 100}
    shown = client.update(turn_detection=vad, transcription={"model": "pausing"})["turn_detection"]
    assert shown == {"type": "server_vad", "silence_duration_ms": 700, "prefix_padding_ms": 100}
    expected = finals(pausing, content, Endpoints(pause=0.7))
    assert len(expected) > 1
    client.append(content)
    turns = [client.until(COMPLETED) for _ in expected[:-1]] + [client.committed()]
    assert [turn[-1]["transcript"] for turn in turns] == [each.text for each in expected]
    items = [turn[-1]["item_id"] for turn in turns]
    ends = [0]
    for index, (turn, segment) in enumerate(zip(turns, expected, strict=True)):
        kinds = [each["type"] for each in turn if each["type"] != DELTA]
        stopped = index < len(turns) - 1  # the client commits the last one while someone speaks
        speech = ["input_audio_buffer.speech_started"] + ["input_audio_buffer.speech_stopped"] * stopped
        assert kinds == speech + COMMITTED
        assert "".join(deltas(turn)) == segment.text
        assert {each["item_id"] for each in turn if "item_id" in each} == {items[index]}
        [committed] = [each for each in turn if each["type"] == COMMITTED[0]]
        assert committed["previous_item_id"] == (items[index - 1] if index else None)
        assert ends[-1] <= turn[0]["audio_start_ms"] < segment.segment.end * 1000
        if stopped:
            [end] = [each["audio_end_ms"] for each in turn if "audio_end_ms" in each]
            assert end == round(segment.segment.end * 1000)
            assert turn[-1]["usage"]["seconds"] == pytest.approx((end - turn[0]["audio_start_ms"]) / 1000, abs=0.002)
            ends.append(end)


def test_a_pause_of_the_clients_choice_decides(client: Client, pausing: Recogniser) -> None:
    content = pcm(9.0, 3)
    vad = {"type": "server_vad", "silence_duration_ms": 2000}
    client.update(turn_detection=vad, transcription={"model": "pausing"})
    client.append(content)
    [whole] = finals(pausing, content, Endpoints(pause=2, no_labels=4))
    assert client.committed()[-1]["transcript"] == whole.text != text_of(finals(pausing, content))


@pytest.mark.parametrize(("name", "decode"), [("audio/pcmu", decode_ulaw), ("audio/pcma", decode_alaw)])
def test_telephony_is_decoded(client: Client, live: Recogniser, name: str, decode: Any) -> None:
    content = np.random.default_rng(0).integers(0, 256, 16_000, np.uint8).tobytes()
    shown = client.update(turn_detection=None, format={"type": name})
    assert shown["format"] == {"type": name}
    client.append(content, 1001)
    completed = client.committed()[-1]
    assert completed["usage"]["seconds"] == 2.0
    assert completed["transcript"] == text_of(finals(live, decode(content), rate=8000)) != ""


@pytest.mark.parametrize("hint", [{"keywords": ["CU"]}, {"prompt": "Say cu, 77."}])
def test_hot_words_and_log_probabilities(client: Client, live: Recogniser, hint: Message) -> None:
    content = pcm(3.0, 1)
    decoder = live.decoder({"CU": 30.0})
    expected = finals(live, content, decoder=decoder)
    include = ["item.input_audio_transcription.logprobs"]
    shown = client.update(turn_detection=None, transcription={"language": "en", **hint}, include=include)
    assert shown["transcription"] == {"model": "live", "prompt": "", "keywords": []} | hint
    assert shown["include"] == include
    client.append(content)
    completed = client.committed()[-1]
    assert completed["transcript"] == text_of(expected) != text_of(finals(live, content))
    assert "".join(each["token"] for each in completed["logprobs"]) == completed["transcript"]


def test_cleared_audio_is_forgotten(client: Client, live: Recogniser) -> None:
    client.update(turn_detection=None)
    client.append(pcm(2.0, 5))
    client.send("input_audio_buffer.clear")
    client.until("input_audio_buffer.cleared")
    client.send("input_audio_buffer.commit", event_id="mine")
    assert client.error()["code"] == "input_audio_buffer_commit_empty"
    content = pcm(2.0, 1)
    client.append(content)
    completed = client.committed()[-1]
    assert completed["transcript"] == text_of(finals(live, content))
    assert completed["usage"]["seconds"] == 2.0


def test_settings_that_change_within_a_turn_count_for_what_follows(
    client: Client, live: Recogniser, recogniser: Recogniser
) -> None:
    first, second = pcm(2.0, 1), pcm(2.0, 2)
    client.update(turn_detection=None)
    client.append(first)
    client.update(transcription={"model": "whole"})
    client.append(second)
    events = client.committed()
    expected = f"{text_of(finals(live, first))} {text_of(finals(recogniser, second))}"
    assert events[-1]["transcript"] == expected
    assert events[-1]["usage"]["seconds"] == 4.0


@pytest.mark.parametrize("header", [{}, {"OpenAI-Beta": "realtime=v1"}])
def test_the_names_of_the_beta_are_understood(server: Running, live: Recogniser, header: dict[str, str]) -> None:
    content = pcm(2.0, 1)
    with connected(server, additional_headers=header) as connection:
        client = Client(connection)
        assert client.first["type"] == ("transcription_session.created" if header else "session.created")
        session = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "live", "prompt": ""},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 1},
        }
        client.send("transcription_session.update", session=session)
        updated = client.until("transcription_session.updated")[-1]["session"]
        assert updated["input_audio_format"] == "pcm16"
        assert updated["input_audio_transcription"]["model"] == "live"
        assert updated["turn_detection"]["silence_duration_ms"] == 100
        client.send("transcription_session.update", session={"turn_detection": None})
        assert client.until("transcription_session.updated")[-1]["session"]["turn_detection"] is None
        client.append(content)
        events = client.committed()
        assert [each["type"] for each in events if each["type"] != DELTA] == [
            "input_audio_buffer.committed",
            "conversation.item.created",
            COMPLETED,
        ]
        assert events[-1]["transcript"] == text_of(finals(live, content))


def updating(**inputs: Any) -> Message:
    return {"type": "session.update", "session": {"audio": {"input": inputs}}}


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        (b"\0\0", None, "invalid_json"),
        ("no json", None, "invalid_json"),
        ("[1]", None, "invalid_json"),
        ({"type": "response.create"}, "type", None),
        ({"type": ["session.update"]}, "type", None),
        ({}, "type", None),
        ({"type": "session.update", "session": 1}, "session", None),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type", None),
        ({"type": "session.update", "session": {"include": "all"}}, "session.include", None),
        (updating(format={"type": "audio/mp3"}), "session.audio.input.format", None),
        (updating(format={"type": "audio/pcm", "rate": 16000}), "session.audio.input.format.rate", None),
        (updating(transcription={"model": "whisper-1"}), "model", "model_not_found"),
        (updating(transcription={"keywords": ["7"]}), "keywords", None),
        (updating(transcription={"prompt": 7}), "session.audio.input.transcription.prompt", None),
        (updating(turn_detection={"type": "none"}), "session.audio.input.turn_detection.type", None),
        (
            updating(turn_detection={"silence_duration_ms": float("nan")}),
            "session.audio.input.turn_detection.silence_duration_ms",
            None,
        ),
        ({"type": "input_audio_buffer.append"}, "audio", None),
        ({"type": "input_audio_buffer.append", "audio": "é"}, "audio", None),
        ({"type": "input_audio_buffer.append", "audio": "AAA="[:3]}, "audio", None),
        ({"type": "input_audio_buffer.append", "audio": "AA=="}, "audio", None),
        ({"type": "input_audio_buffer.commit"}, None, "input_audio_buffer_commit_empty"),
    ],
)
def test_an_error_leaves_the_session_as_it_was(
    client: Client, message: bytes | str | Message, param: str | None, code: str | None
) -> None:
    named = isinstance(message, dict)
    client.socket.send(json.dumps(message | {"event_id": "mine"}) if isinstance(message, dict) else message)
    error = client.error()
    assert (error["param"], error["code"], error["event_id"]) == (param, code, "mine" if named else None)
    assert error["type"] == "invalid_request_error"
    assert " must " in error["message"]
    assert client.update() == client.first["session"]["audio"]["input"] | {"include": []}


@pytest.mark.parametrize("depth", [100, 900, 960, 990, 100_000])
def test_what_a_client_wrote_can_be_shown(client: Client, depth: int) -> None:
    client.socket.send('{"type": ' + "[" * depth + "]" * depth + ', "event_id": "\\ud800"}')
    assert client.error()["event_id"] in ("\ud800", None)
    assert client.update()["transcription"]["model"] == "live"


def test_a_stream_that_fails_ends_its_turn_alone(
    client: Client, server: Running, live: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret")

    client.update(turn_detection=None)
    client.append(pcm(1.0, 5))
    content = pcm(2.0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(live.streams, "finish", broken)
        client.send("input_audio_buffer.commit")
        failed = client.until(FAILED)[-1]
    assert failed["error"]["type"] == "server_error"
    assert "secret" not in str(failed)
    client.append(content)
    completed = client.committed()[-1]
    assert completed["transcript"] == text_of(finals(live, content))
    assert completed["item_id"] != failed["item_id"]


def test_browsers_get_the_subprotocol_and_send_the_key_in_it(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads", keys=["key"]) as server:
        with connected(server, subprotocols=["realtime", "openai-insecure-api-key.key"]) as connection:
            assert connection.subprotocol == "realtime"
        assert refused(server) == 401
        assert refused(server, subprotocols=["realtime", "openai-insecure-api-key.other"]) == 401


def refused(server: Running, query: str = "", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as error, connected(server, query, **options):
        pass
    return error.value.response.status_code


def test_an_unknown_model_is_refused(server: Running) -> None:
    assert refused(server, "?model=gpt-realtime") == 404
    with connected(server, "?model=whole") as connection:
        assert Client(connection).first["session"]["audio"]["input"]["transcription"]["model"] == "whole"


def closed(client: Client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as error:
        client.until("the end")
    assert error.value.rcvd is not None
    return error.value.rcvd.code, error.value.rcvd.reason


def test_turns_messages_idle_time_and_streams_are_bounded(live: Recogniser, tmp_path: Path) -> None:
    limits = Limits(max_seconds=2.0, max_streams=1, idle_seconds=0.4)
    with running({"live": live}, tmp_path / "uploads", limits) as server:
        with connected(server) as connection:
            client = Client(connection)
            assert refused(server) == 429
            client.update(turn_detection=None)
            client.append(bytes(4 * RATE), 4 * RATE)
            client.append(bytes(2))
            assert client.error()["code"] == "turn_too_long"
            assert client.committed()[-1]["usage"]["seconds"] == 2.0
            client.append(bytes(2 * RATE))
            assert closed(client) == (1008, "nothing came for 0.4 s")
        server.wait_until_idle()
        with connected(server) as connection:
            client = Client(connection)
            client.append(bytes(2**22), 2**22)
            assert closed(client)[0] == 1009
        server.wait_until_idle()
        with connected(server) as connection:
            client = Client(connection)
            client.append(pcm(1.0, 1))
            connection.socket.close()  # goes away without a word
        server.wait_until_idle()


def test_a_client_that_does_not_read_is_given_up(live: Recogniser, tmp_path: Path) -> None:
    content = json.dumps(updating(transcription={"prompt": "7" * 50_000})).encode()  # the answer has it, too
    frame = struct.pack(">BBHI", 0x81, 0x80 | 126, len(content), 0) + content
    head = (
        "GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with running({"live": live}, tmp_path / "uploads", Limits(idle_seconds=0.4)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head.encode())
            assert client.recv(100).startswith(b"HTTP/1.1 101 ")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.sendall(1000 * frame)
            server.wait_until_idle()
        server.wait_until_idle()


def test_hours_of_silence_are_no_turn(live: Recogniser, tmp_path: Path) -> None:
    with (
        running({"live": live}, tmp_path / "uploads", Limits(max_seconds=2.0)) as server,
        connected(server) as connection,
    ):
        client = Client(connection)
        client.append(bytes(2 * 9 * RATE), 2 * RATE)
        client.append(pcm(3.0, 1))
        completed = client.committed()[-1]
        assert completed["transcript"]
        assert completed["usage"]["seconds"] < 4.0


def test_a_server_that_stops_closes_its_sessions(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads") as server:
        connection = connected(server)
        client = Client(connection)
        client.append(pcm(1.0, 1))
        client.until(DELTA)
    assert closed(client)[0] == 1012
    assert server.service.num_streams == 0

"""OpenAI's Realtime transcription: who may connect, how much is taken, and how a session ends."""

import json
import socket
import struct
from pathlib import Path

import pytest

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Limits
from tests.serving.realtime_client import (
    DELTA,
    RATE,
    Client,
    closed,
    connected,
    pcm,
    refused,
    updating,
)
from tests.serving.servers import running


def test_browsers_get_the_subprotocol_and_send_the_key_in_it(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads", keys=["key"]) as server:
        with connected(server, subprotocols=["realtime", "openai-insecure-api-key.key"]) as connection:
            assert connection.subprotocol == "realtime"
        assert refused(server) == 401
        assert refused(server, subprotocols=["realtime", "openai-insecure-api-key.other"]) == 401


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

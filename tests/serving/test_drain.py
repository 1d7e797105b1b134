"""A server that stops refuses the new, and gives live clients that send nothing their last words."""

import json
from pathlib import Path

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving import sockets
from tests.serving.realtime_client import COMPLETED, Client, closed, connected, finals, pcm, text_of
from tests.serving.servers import running, write_talk

STOPS = (1001, "the server stops")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LAST_SECONDS", 0.3)
    monkeypatch.setattr(sockets, "POLL_SECONDS", 0.05)


def test_clients_of_vosk(live: Recogniser, tmp_path: Path) -> None:
    content = pcm(2.0, 3)
    with running({"live": live}, tmp_path / "uploads") as server:
        with connect(f"ws://127.0.0.1:{server.port}/vosk") as client:
            client.send(json.dumps({"config": {"sample_rate": 24_000}}))
            client.send(content)
            client.recv(timeout=30)
            server.service.draining = True
            assert json.loads(client.recv(timeout=30))["text"] == text_of(finals(live, content)) != ""
            with pytest.raises(ConnectionClosed) as error:
                client.recv(timeout=30)
            assert error.value.rcvd is not None
            assert (error.value.rcvd.code, error.value.rcvd.reason) == STOPS
        server.wait_until_idle()


@pytest.mark.parametrize("detect", [True, False])
def test_clients_of_realtime(live: Recogniser, tmp_path: Path, detect: bool) -> None:
    content = pcm(2.0, 3)
    with running({"live": live}, tmp_path / "uploads") as server, connected(server) as socket:
        client = Client(socket)
        if not detect:
            client.update(turn_detection=None)
        client.append(content)
        server.service.draining = True
        assert client.until(COMPLETED)[-1]["transcript"] == text_of(finals(live, content)) != ""
        assert closed(client) == STOPS


def test_who_has_sent_nothing_is_let_go(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads") as server, connected(server) as socket:
        client = Client(socket)
        server.service.draining = True
        assert closed(client) == STOPS


def test_a_server_that_drains_refuses_the_new(recogniser: Recogniser, tmp_path: Path) -> None:
    audio = write_talk(tmp_path / "a.wav", 1.0, 0)
    with running({"whole": recogniser}, tmp_path / "uploads") as server:
        server.service.draining = True
        answer = server.post(audio)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert requests.get(f"{server.url}/ready", timeout=60).status_code == 503
        assert requests.get(f"{server.url}/health", timeout=60).status_code == 200

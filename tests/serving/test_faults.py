"""Clients and machines that misbehave: the server answers or ends the connection, goes on, and nothing is left."""

import concurrent.futures
import contextlib
import gzip
import json
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.serving import service
from ds2_jax.serving.options import Limits
from tests.fuzz.mutate import mutate
from tests.serving.servers import Running, running, talk, write_talk
from tests.small_runs import RATE

ROOT = Path(__file__).resolve().parent.parent.parent
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server(recogniser: Recogniser, live: Recogniser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(idle_seconds=2.0, max_megabytes=2)
    with running({"whole": recogniser, "live": live}, tmp_path_factory.mktemp("uploads"), limits) as server:
        yield server


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("audio") / "a.wav", 2.0, 5)


@pytest.fixture(autouse=True)
def is_well_afterwards(server: Running, audio: Path, recogniser: Recogniser) -> Iterator[None]:
    """After each fault, the server recognises as before, and nothing of the fault is left."""
    yield
    server.wait_until_idle()
    assert server.post(audio).json()["text"] == recogniser.transcribe(audio).text


def until_closed(client: socket.socket) -> bytes:
    """Reads until the server closes; fails if it does not."""
    client.settimeout(10)
    content = b""
    try:
        while part := client.recv(2**16):
            content += part
    except ConnectionResetError:
        pass
    finally:
        client.close()
    return content


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\n"])
def test_connections_without_a_whole_request_end(server: Running, sent: bytes) -> None:
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(sent)
    started = time.monotonic()
    assert until_closed(client) == b""
    assert time.monotonic() - started < 5


def test_a_header_that_comes_byte_by_byte_ends_even_behind_a_good_request(server: Running) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(request)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            client.sendall(b"G")
            time.sleep(0.1)
        pytest.fail("the connection does not end")
    client.close()


def test_an_upload_that_drips_ends(server: Running) -> None:
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    head += (
        'Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    )
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(head.encode())
    started = time.monotonic()
    while time.monotonic() - started < 10:
        try:
            client.sendall(b"x")
            client.settimeout(0.2)
            answer = client.recv(1000)
        except TimeoutError:
            continue
        break
    client.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"y" * 200_000 + b"\r\n", b"".join(b"X%d: y\r\n" % each for each in range(20_000))],
    ids=["long", "many"],
)
def test_header_bombs(server: Running, headers: bytes) -> None:
    for path in (b"/v1/models", b"/vosk"):
        client = socket.create_connection(("127.0.0.1", server.port))
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if path == b"/vosk" else b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + upgrade + headers + b"\r\n")
        assert until_closed(client)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")


def test_compressed_bodies_are_not_unpacked(server: Running, audio: Path) -> None:
    body = gzip.compress(bytes(50_000_000))
    headers = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"}
    answer = requests.post(server.url + TRANSCRIPTIONS, data=body, headers=headers, timeout=60)
    assert answer.status_code == 400


def test_a_compressed_message_is_bounded_by_its_size_unpacked(server: Running) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/vosk", compression="deflate") as client:
        client.send(bytes(2**26))
        with pytest.raises(ConnectionClosed) as raised:
            client.recv(timeout=30)
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == 1009


def test_an_oversize_upload_ends_early(server: Running) -> None:
    """The rest is not waited for: the client learns at once that it is in vain."""
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(head.encode())
    client.settimeout(10)
    assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
    client.close()


def test_clients_that_go_away_at_any_place_leave_nothing(server: Running, audio: Path) -> None:
    content = audio.read_bytes()
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = head + content + b'\r\n--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--x--\r\n'
    request = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" % (TRANSCRIPTIONS.encode(), len(body)) + body
    )
    generator = random.Random(0)
    for _ in range(40):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(request[: generator.randrange(len(request) + 1)])
        time.sleep(generator.choice([0, 0.01, 0.03]))
        client.close()
    for _ in range(10):
        stream = connect(f"ws://127.0.0.1:{server.port}/vosk")
        for _ in range(generator.randrange(4)):
            stream.send((talk(0.5, 1) * 32767).astype("<i2").tobytes())
        stream.socket.close()


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("secret")


def test_a_reader_that_raises_fails_only_its_request(
    server: Running, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "read_blocks", broken)
    answer = server.post(audio)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text


def test_a_live_stream_that_raises_ends_and_others_go_on(
    server: Running, live: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (talk(2.0, 1) * 32767).astype("<i2").tobytes()
    with connect(f"ws://127.0.0.1:{server.port}/vosk") as good, connect(f"ws://127.0.0.1:{server.port}/vosk") as bad:
        for client in (good, bad):
            client.send(json.dumps({"config": {"sample_rate": RATE, "model": "live"}}))
        good.send(content)
        good.recv(timeout=30)
        with monkeypatch.context() as patch:
            patch.setattr(live.streams, "feed", broken)
            bad.send(content)
            with pytest.raises(ConnectionClosed):
                bad.recv(timeout=30)
        good.send(content)
        good.recv(timeout=30)
        good.send('{"eof" : 1}')
        stream = live.stream(RATE)
        expected = stream.feed(np.frombuffer(content * 2, "<i2")) + stream.finish()
        texts = [event.text for event in expected if isinstance(event, FinalText)]
        assert texts[-1].endswith(json.loads(good.recv(timeout=30))["text"])


def test_a_full_disk_is_told_and_small_files_still_work(live: Recogniser, tmp_path: Path) -> None:
    long, short = write_talk(tmp_path / "long.wav", 100.0, 1), write_talk(tmp_path / "short.wav", 2.0, 2)
    words = [sys.executable, "main.py", "serve", str(live._model.path), "--port", "0", "--engine", "onnx"]
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", process.stderr.readline())):
            assert process.poll() is None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        for path, status in ((long, 507), (short, 200), (long, 507)):
            with path.open("rb") as file:
                answer = requests.post(f"http://127.0.0.1:{found[1]}{TRANSCRIPTIONS}", files={"file": file}, timeout=60)
            assert answer.status_code == status
        [folder] = tmp_path.glob("ds2_jax*")
        assert list(folder.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["true", "false"])
def test_requests_that_outlast_the_server_are_told_to_try_again(
    recogniser: Recogniser, tmp_path: Path, audio: Path, stream: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    blocked = threading.Event()
    monkeypatch.setattr(recogniser, "piece_log_probs", lambda _: [blocked.wait(30)])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with running({"whole": recogniser}, tmp_path / "uploads") as server:
            asked = pool.submit(server.post, audio, stream=stream)
            while not server.service.thread.num_waiting:
                time.sleep(0.01)
            threading.Timer(6, blocked.set).start()  # after the 5 s that uvicorn waits
        assert (asked.result().status_code, "retry-after" in asked.result().headers) == (503, True)
    assert "Traceback" not in caplog.text


FIELDS = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nlive\r\n'
    b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\ngo left\r\n'
    b'--x\r\nContent-Disposition: form-data; name="response_format"\r\n\r\nverbose_json\r\n'
    b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
)


def request_seeds(folder: Path) -> list[bytes]:
    """Writes requests of every kind."""
    sound = write_talk(folder / "seed.wav", 0.3, 1).read_bytes()
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + sound + b"\r\n"
    bodies = [FIELDS + file + b"--x--\r\n", file + b"--x--\r\n"]
    posts = [
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path, len(body), body)
        for path in (TRANSCRIPTIONS.encode(), b"/transcribe")
        for body in bodies
    ]
    gets = [
        b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"/v1/models", b"/metrics", b"/v1/models/a")
    ]
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    return [*posts, *gets, b"GET /vosk HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n\x82\x04abcd\x88\x00"]


def send_mutated(server: Running, seeds: list[bytes], seed: int) -> None:
    generator = random.Random(seed)
    content = mutate(generator.choice(seeds), seeds, generator, is_text=generator.random() < 0.5)
    client = socket.create_connection(("127.0.0.1", server.port))
    try:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    until_closed(client)


MESSAGES = (
    b'{"config": {"sample_rate": 16000, "words": true, "max_alternatives": 2, "model": "live"}}',
    b'{"eof" : 1}',
    b'{"reset" : 1}',
    b'{"config": {"phrase_list": ["go left", "[unk]"]}}',
)


def say_mutated(server: Running, seeds: list[bytes], seed: int) -> None:
    generator = random.Random(seed)
    sound = (talk(0.3, 2) * 32767).astype("<i2").tobytes()
    with connect(f"ws://127.0.0.1:{server.port}/vosk", close_timeout=10) as client:
        try:
            for _ in range(3):
                text = mutate(generator.choice(MESSAGES), MESSAGES, generator, is_text=True)
                client.send(text.decode("utf-8", "replace"))
                client.send(mutate(sound, [sound], generator, is_text=False)[: 2**16])
            client.send('{"eof" : 1}')
            while True:
                client.recv(timeout=10)
        except ConnectionClosed:
            pass


def attack(server: Running, folder: Path, seeds: range, honest: Callable[[], None]) -> None:
    """Sends mutated requests and messages from several clients, while an honest one asks for its own text."""
    own, over = request_seeds(folder), threading.Event()

    def ask() -> None:
        while not over.is_set():
            honest()

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        asking = pool.submit(ask)
        try:
            sent = [pool.submit(say_mutated if seed % 4 == 0 else send_mutated, server, own, seed) for seed in seeds]
            for each in sent:
                each.result()
        finally:
            over.set()
        asking.result()


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(120), id="few"), pytest.param(range(10_000), id="many", marks=pytest.mark.slow)]
)
def test_mutated_requests_and_messages(
    server: Running, tmp_path: Path, audio: Path, live: Recogniser, seeds: range
) -> None:
    expected = live.transcribe(audio).text

    def honest() -> None:
        answer = server.post(audio, model="live")
        assert answer.status_code in (200, 429)
        assert answer.status_code == 429 or answer.json()["text"] == expected

    attack(server, tmp_path, seeds, honest)
    assert all(thread.is_alive() for thread in server.service.thread._threads)

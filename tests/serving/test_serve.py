"""The command: it starts, says where, finishes what has begun after SIGTERM, and leaves nothing."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ds2_jax.decoding.options import GREEDY
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import DEFAULTS, LOG, Access, Network
from ds2_jax.serving.server import serve
from ds2_jax.serving.settings import ModelSettings
from ds2_jax.system.errors import InputError
from tests.serving.servers import write_talk

ROOT = Path(__file__).resolve().parent.parent.parent


def test_sigterm_finishes_what_has_begun(recogniser: Recogniser, tmp_path: Path) -> None:
    run = recogniser._model.path
    assert run is not None
    places = tmp_path / "places"
    places.mkdir()
    words = [sys.executable, "main.py", "serve", str(run), "--port", "0", "--vosk-port", "0", "--engine", "onnx"]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(places)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while not (
            ready := re.search(
                r"ready after .* (http://127\.0\.0\.1:(\d+))/v1 serves whole, and vosk's clients on port (\d+)",
                process.stderr.readline(),
            )
        ):
            assert process.poll() is None
        url, port = ready[1], int(ready[2])
        with connect(f"ws://127.0.0.1:{ready[3]}") as socket_:
            socket_.send('{"eof" : 1}')
            assert socket_.recv(timeout=10) == '{"text": ""}'
        with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}"):
            pass
        audio = write_talk(tmp_path / "a.wav", 3.0, 1).read_bytes()
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = head + audio + b"\r\n--x--\r\n"
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(
            b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:1000]
        )
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        while requests.get(f"{url}/ready", timeout=10).status_code != 503:
            time.sleep(0.02)
        assert requests.post(f"{url}/transcribe", timeout=10).status_code == 503
        client.sendall(body[1000:])
        answer = b"".join(iter(lambda: client.recv(10_000), b"")).decode()
        client.close()
        assert f'"transcription":"{recogniser.transcribe(tmp_path / "a.wav").text}"' in answer
        threading.Timer(30, process.kill).start()
        assert process.wait() == 143
    finally:
        process.kill()
        rest = process.communicate()[1]
    assert "terminated: finishing the requests that have begun" in rest
    assert "Traceback" not in rest
    assert list(places.glob("ds2_jax*")) == []


def test_a_port_must_be_free(recogniser: Recogniser) -> None:
    run = recogniser._model.path
    assert run is not None
    models = {"whole": ModelSettings(run, "onnx", GREEDY)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option, access in (("--port", Access()), ("--vosk-port", Access(vosk_port=port))):
            with pytest.raises(InputError, match=rf"^{option} must be free on 127\.0\.0\.1, got {port}\. Choose"):
                serve(models, Network(port if option == "--port" else 0), access, DEFAULTS, LOG)
    with pytest.raises(InputError, match=r"^--vosk-port must be 0 to 65535, got 65536\.$"):
        Access(vosk_port=65536)

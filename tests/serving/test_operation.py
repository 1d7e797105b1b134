"""Proxies, TLS, other origins, ids, logs and metrics."""

import json
import logging
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.app import make_app
from ds2_jax.serving.models import warm
from ds2_jax.serving.observe import JsonLines
from ds2_jax.serving.options import DEFAULTS, Log, Network
from ds2_jax.serving.server import server_config
from ds2_jax.serving.service import Service
from ds2_jax.system.errors import InputError
from tests.serving.servers import Running, running, talk, write_talk
from tests.small_runs import RATE

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = "https://talk.example"


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("audio") / "secret-name.wav", 3.0, 5)


@pytest.fixture(scope="module")
def proxied(live: Recogniser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server behind a proxy, which pages of another origin may use, and that asks for a key."""
    network = Network(0, root_path="/speech", allow_origin=(PAGE,))
    folder = tmp_path_factory.mktemp("uploads")
    with running({"live": live}, folder, keys=["key"], network=network, log=Log(log_texts=True)) as server:
        yield server


def test_pages_of_a_named_origin_may_use_the_server(proxied: Running, audio: Path) -> None:
    url = f"{proxied.url}/v1/audio/transcriptions"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = requests.options(url, headers={"Origin": PAGE, **asked}, timeout=60)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, PAGE)
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    refused = requests.options(url, headers={"Origin": "https://evil.example", **asked}, timeout=60)
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)
    for key, status in (("key", 200), ("other", 401)):
        headers = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
        with audio.open("rb") as file:
            answer = requests.post(url, headers=headers, files={"file": file}, timeout=60)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert (answer.headers["vary"], "x-request-id" in answer.headers) == ("origin", True)


def test_live_streams_check_origin_and_key(proxied: Running) -> None:
    url = f"ws://127.0.0.1:{proxied.port}/vosk"

    def status(origin: str | None, key: str) -> int:
        try:
            headers = {"Authorization": f"Bearer {key}"}
            with connect(url, origin=origin, additional_headers=headers) as socket:  # type: ignore[arg-type]
                socket.send('{"eof" : 1}')
                socket.recv()
                assert socket.response is not None
                return socket.response.status_code
        except InvalidStatus as error:
            return error.response.status_code

    assert [status(PAGE, "key"), status(None, "key"), status("https://evil.example", "key")] == [101, 101, 403]
    assert status(PAGE, "other") == 401
    proxied.wait_until_idle()


def test_the_path_of_a_proxy_is_left_out(proxied: Running, audio: Path) -> None:
    assert requests.get(f"{proxied.url}/health", timeout=60).status_code == 200  # needs no key
    assert requests.get(f"{proxied.url}/v1/models", timeout=60).status_code == 401
    text = requests.get(f"{proxied.url}/metrics", headers={"Authorization": "Bearer key"}, timeout=60).text
    assert 'route="/health",status="200"' in text


def test_requests_are_logged_with_texts_if_asked(
    proxied: Running, audio: Path, live: Recogniser, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ds2_jax"), "propagate", True)
    headers = {"Authorization": "Bearer key", "X-Forwarded-For": "192.0.2.7"}
    with caplog.at_level(logging.INFO, "ds2_jax"), audio.open("rb") as file:
        url = f"{proxied.url}/v1/audio/transcriptions"
        answer = requests.post(url, headers=headers, files={"file": file}, timeout=60)
        proxied.wait_until_idle()
    text = live.transcribe(audio).text
    assert text
    [line] = [JsonLines().format(each) for each in caplog.records if hasattr(each, "fields")]
    fields = json.loads(line)
    assert fields.pop("seconds") > 0
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "info",
        "id": answer.headers["x-request-id"],
        "client": "192.0.2.7",
        "route": "/v1/audio/transcriptions",
        "status": 200,
        "audio_seconds": 3.0,
        "model": "live",
        "text": f"{text}\n",
        "file": "secret-name.wav",
    }


def test_the_log_has_neither_texts_nor_names_nor_probes(
    live: Recogniser, audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ds2_jax"), "propagate", True)
    with caplog.at_level(logging.INFO, "ds2_jax"), running({"live": live}, tmp_path / "uploads") as server:
        server.post(audio)
        requests.get(f"{server.url}/ready", timeout=60)
        requests.get(f"{server.url}/private\n/path?key=secret", timeout=60)
        with connect(f"ws://127.0.0.1:{server.port}/vosk") as socket:
            socket.send('{"config": {"sample_rate": 16000}}')
            socket.send((talk(2.0, 1) * 32767).astype("<i2").tobytes())
            socket.recv()
            socket.send('{"eof": 1}')
            socket.recv()
        server.wait_until_idle()
    lines = [each.getMessage() for each in caplog.records if hasattr(each, "fields")]
    assert len(lines) == 3
    assert " /v1/audio/transcriptions 200 " in lines[0]
    assert lines[0].endswith(" s, 3.0 s of audio, model live")
    assert " other 404 " in lines[1]
    assert " /vosk 101 " in lines[2]
    assert lines[2].endswith(" s, 2.0 s of audio, model live")
    assert not any("secret" in line or "private" in line or "\n" in line for line in lines)


def samples(server: Running) -> dict[str, float]:
    """Reads the metrics."""
    lines = requests.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_metrics_measure_work(live: Recogniser, recogniser: Recogniser, audio: Path, tmp_path: Path) -> None:
    with running({"whole": recogniser, "live": live}, tmp_path / "uploads") as server:
        server.post(audio)
        server.post(audio)
        with connect(f"ws://127.0.0.1:{server.port}/vosk") as socket:
            socket.send('{"config": {"sample_rate": 16000, "model": "live"}}')
            for _ in range(3):
                socket.send((talk(1.0, 1) * 32767).astype("<i2").tobytes())
                socket.recv()
            assert samples(server)["ds2_streams"] == 1
            socket.send('{"eof": 1}')
            socket.recv()
        server.wait_until_idle()
        found = samples(server)
    assert found["ds2_audio_seconds_total"] == pytest.approx(2 * 3.0 + 3.0)
    counts = {kind: found[f'ds2_latency_seconds_count{{kind="{kind}"}}'] for kind in ("file", "step", "final")}
    assert counts == {"file": 2, "step": 3, "final": 1}
    assert (found["ds2_queue_seconds_count"], found["ds2_batch_pieces_count"]) == (2, 2)
    assert (found["ds2_batch_streams_count"], found["ds2_streams"], found["ds2_queue_length"]) == (3, 0, 0)
    assert found['ds2_requests_total{route="/vosk",status="101"}'] == 1


def certificate(folder: Path) -> tuple[Path, Path]:
    paths = folder / "certificate.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "1"]
    subprocess.run([*words, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def test_the_command_speaks_tls_and_logs_json(live: Recogniser, audio: Path, tmp_path: Path) -> None:
    own, key = certificate(tmp_path)
    settings = tmp_path / "serve.toml"
    settings.write_text(f"port = 0\nlog-format = 'json'\n[model.talk]\nrun = '{live._model.path}'\nengine = 'onnx'\n")
    words = [sys.executable, "main.py", "serve", "--settings", str(settings), "--certificate", str(own)]
    environment = {"PATH": "/usr/bin:/bin", "DS2_JAX_SERVE_CERTIFICATE_KEY": str(key)}
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        ready = r"ready after .* s: https://127\.0\.0\.1:(\d+)/v1 serves talk; the page is .*"
        while not (found := re.fullmatch(ready, json.loads(process.stderr.readline())["message"])):
            assert process.poll() is None
        url = f"https://localhost:{found[1]}"
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=60)
        with audio.open("rb") as file:
            answer = requests.post(f"{url}/transcribe", files={"file": file}, verify=str(own), timeout=60)
        assert answer.json() == {"status": "OK", "transcription": live.transcribe(audio).text}
        trusted = ssl.create_default_context(cafile=own)
        with connect(f"wss://localhost:{found[1]}/vosk", ssl=trusted) as socket:
            socket.send('{"eof": 1}')
            assert json.loads(socket.recv()) == {"text": ""}
        process.terminate()
        assert process.wait(30) == 143
    finally:
        process.kill()
        rest = process.communicate()[1].splitlines()
    requested = [json.loads(line) for line in rest if '"route"' in line]
    assert [each.get("model") for each in requested] == ["talk", None]
    assert [each["route"] for each in requested] == ["/transcribe", "/vosk"]


def test_a_certificate_that_cannot_be_used_is_told(live: Recogniser, tmp_path: Path) -> None:
    own, key = certificate(tmp_path)
    key.write_text(own.read_text())
    service = Service({"live": live}, tmp_path, DEFAULTS)
    try:
        with pytest.raises(InputError, match=r"^--certificate must be usable, got: .*PEM"):
            server_config(make_app(service), "127.0.0.1", Network(0, own, key))
    finally:
        service.close()


class Compiled:
    """A model that is compiled, and notes the shapes that it is run with."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self.shapes: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recogniser, name)

    compiles = True

    def piece_log_probs(self, waveforms: Any) -> None:
        self.shapes.append((len(waveforms), len(waveforms[0])))


def test_warming_runs_every_shape(recogniser: Recogniser, live: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Compiled(recogniser)
    warm(whole, 20)  # type: ignore[arg-type]
    assert (1, RATE) in whole.shapes
    assert (8, RATE) in whole.shapes
    assert max(length for number, length in whole.shapes if number == 1) >= 35 * RATE
    assert 12 * RATE < max(length for number, length in whole.shapes if number == 8) <= 15 * RATE
    sizes: list[int] = []
    assert live.streams.steps is not None
    monkeypatch.setattr(live.streams, "feed", lambda streams: sizes.append(len(streams)))
    monkeypatch.setattr(live, "transcribe", lambda *_: None)
    warm(Compiled(live), 20)  # type: ignore[arg-type]
    assert sizes == [1, 4, 16, 20]

"""The HTTP interface: answers, errors, limits, and who may come in."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ds2_jax.audio.reading import read_audio
from ds2_jax.recognition.formats import to_srt, to_vtt
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving import uploads
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.options import Limits
from ds2_jax.system.errors import InputError
from tests.serving.servers import Running, running, write_talk
from tests.small_runs import RATE

TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server(recogniser: Recogniser, live: Recogniser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(hot_word_boost=30.0)  # the drawn weights are sure of what they write
    with running({"whole": recogniser, "live": live}, tmp_path_factory.mktemp("uploads"), limits) as server:
        yield server


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("audio") / "secret-name.wav", 9.0, 5)


@pytest.mark.parametrize("name", ["whole", "live"])
def test_each_format_has_the_text_of_transcribe(
    server: Running, audio: Path, name: str, request: pytest.FixtureRequest
) -> None:
    model: Recogniser = request.getfixturevalue("recogniser" if name == "whole" else name)
    expected = model.transcribe(audio)
    answer = server.post(audio, model=name).json()
    assert answer == {"text": expected.text, "usage": {"type": "duration", "seconds": 9.0}}
    assert server.post(audio, model=name, response_format="text").text == f"{expected.text}\n"
    assert server.post(audio, model=name, response_format="srt").text == to_srt(expected)
    vtt = server.post(audio, model=name, response_format="vtt")
    assert (vtt.text, vtt.headers["content-type"]) == (to_vtt(expected), "text/vtt; charset=utf-8")
    verbose = server.post(audio, model=name, response_format="verbose_json", language="en").json()
    assert (verbose["text"], verbose["duration"], verbose["language"]) == (expected.text, 9.0, "en")
    assert [each["text"] for each in verbose["segments"]] == [each.readings[0].text for each in expected.segments]
    assert "words" not in verbose
    server.wait_until_idle()


def test_words_and_log_probabilities_come_if_asked_for(server: Running, audio: Path, recogniser: Recogniser) -> None:
    expected = recogniser.transcribe(audio)
    wanted: dict[str, Any] = {"response_format": "verbose_json", "timestamp_granularities_": ["word", "segment"]}
    verbose = server.post(audio, **wanted).json()
    assert [each["word"] for each in verbose["words"]] == [word.text for word in expected.words]
    assert [each["end"] for each in verbose["words"]] == [round(word.end, 3) for word in expected.words]
    assert "segments" not in server.post(audio, response_format="verbose_json", timestamp_granularities_="word").json()
    tokens = server.post(audio, include_="logprobs").json()["logprobs"]
    assert "".join(token["token"] for token in tokens) == expected.text
    assert bytes(tokens[0]["bytes"]).decode() == tokens[0]["token"]
    assert all(token["logprob"] <= 0 for token in tokens)


def events_of(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]


def test_a_stream_of_events_adds_up_to_the_text(
    server: Running, tmp_path: Path, recogniser: Recogniser, live: Recogniser
) -> None:
    audio = write_talk(tmp_path / "a.wav", 48.0, 3)
    for name, model in {"whole": recogniser, "live": live}.items():
        *deltas, done = events_of(server.post(audio, model=name, stream="true", include_="logprobs"))
        assert len(deltas) > 1
        assert {each["type"] for each in deltas} == {"transcript.text.delta"}
        assert done["type"] == "transcript.text.done"
        assert "".join(each["delta"] for each in deltas) == done["text"] == model.transcribe(audio).text
        assert [token for each in deltas for token in each["logprobs"]] == done["logprobs"]
    server.wait_until_idle()


def test_an_error_after_the_stream_has_begun_is_an_event(
    server: Running, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognise = server.service.recognise

    async def broken(*arguments: Any) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(recognise(*arguments)) as results:
            async for each in results:
                yield each
                raise RequestError(500, "The model broke.")

    monkeypatch.setattr(server.service, "recognise", broken)
    first, error = events_of(server.post(audio, model="live", stream="true"))
    assert first["type"] == "transcript.text.delta"
    assert error["error"]["message"] == "The model broke."
    server.wait_until_idle()


def test_the_file_may_come_first_and_unknown_fields_are_ignored(server: Running, audio: Path) -> None:
    parts: list[Any] = [("file", ("a.wav", audio.read_bytes())), ("model", (None, "live")), ("beautify", (None, "yes"))]
    first = requests.post(server.url + TRANSCRIPTIONS, files=parts, timeout=60)
    assert first.json() == server.post(audio, model="live", temperature="0.0").json()


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "whisper-9"}, 404, "model", "model_not_found"),
        ({"response_format": "diarized_json"}, 400, "response_format", None),
        ({"timestamp_granularities_": "syllable"}, 400, "timestamp_granularities", None),
        ({"include_": "thoughts"}, 400, "include", None),
        ({"temperature": "2"}, 400, "temperature", None),
        ({"temperature": "nan"}, 400, "temperature", None),
        ({"stream": "perhaps"}, 400, "stream", None),
        ({"known_speaker_names_": "me"}, 400, "known_speaker_names", None),
        ({"keywords_": "7"}, 400, "keywords", None),
    ],
)
def test_a_wrong_field_is_an_error_in_openais_form(
    server: Running, audio: Path, fields: dict[str, str], status: int, param: str, code: str | None
) -> None:
    answer = server.post(audio, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{param} must ")
    server.wait_until_idle()


def test_audio_that_cannot_be_read_is_told_without_the_servers_paths(server: Running, tmp_path: Path) -> None:
    for content in (b"", b"RIFF", b"no audio"):
        (tmp_path / "a.wav").write_bytes(content)
        answer = server.post(tmp_path / "a.wav")
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, "file", "unreadable_audio")
        assert error["message"].startswith("file must ")
        assert str(server.service.folder) not in answer.text


@pytest.mark.parametrize("body", [{"data": {"model": "whole"}}, {"json": {}}, {"files": {"audio": b"x"}}])
def test_a_form_without_a_file_is_refused(server: Running, body: dict[str, Any]) -> None:
    answer = requests.post(server.url + TRANSCRIPTIONS, **body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_hot_words_change_what_is_written(server: Running, audio: Path, recogniser: Recogniser) -> None:
    plain = server.post(audio).json()["text"]
    beam = recogniser.decoder({"CU": server.service.limits.hot_word_boost})
    expected = beam(recogniser.piece_log_probs([read_audio(audio, RATE)])[0])[0].text
    assert server.post(audio, keywords_=["CU"]).json()["text"] == expected != plain
    assert server.post(audio, prompt="cu, 77!").json()["text"] == expected


def test_models_are_listed(server: Running) -> None:
    answer = requests.get(f"{server.url}/v1/models", timeout=60).json()
    assert (answer["object"], [each["id"] for each in answer["data"]]) == ("list", ["whole", "live"])
    assert requests.get(f"{server.url}/v1/models/live", timeout=60).json() == answer["data"][1]
    missing = requests.get(f"{server.url}/v1/models/other", timeout=60)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_deepspeech_pytorchs_clients_get_their_answers(
    server: Running, audio: Path, recogniser: Recogniser, tmp_path: Path
) -> None:
    text = recogniser.transcribe(audio).text
    assert server.post(audio, "/transcribe").json() == {"status": "OK", "transcription": text}
    (tmp_path / "a").write_bytes(b"x")
    for answer in (server.post(tmp_path / "a", "/transcribe"), requests.post(f"{server.url}/transcribe", timeout=60)):
        assert (answer.status_code, answer.json()["status"]) == (200, "error")
        assert " must " in answer.json()["message"]


def test_metrics_count_and_tell_no_names(server: Running, audio: Path) -> None:
    server.post(audio)
    requests.get(f"{server.url}/some/private/path", timeout=60)
    answer = requests.get(f"{server.url}/metrics", timeout=60)
    assert 'ds2_requests_total{route="/v1/audio/transcriptions",status="200"}' in answer.text
    assert 'ds2_requests_total{route="other",status="404"}' in answer.text
    assert "ds2_batch_pieces_bucket" in answer.text
    assert "private" not in answer.text
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


def test_clients_at_once_get_their_own_texts(
    server: Running, tmp_path: Path, recogniser: Recogniser, live: Recogniser
) -> None:
    files = [write_talk(tmp_path / f"{i}.wav", seconds, i) for i, seconds in enumerate([1, 2, 3, 3, 3, 8, 50, 2])]
    expected = {
        (path, name): model.transcribe(path).text
        for path in files
        for name, model in {"whole": recogniser, "live": live}.items()
    }
    assert len(set(expected.values())) == len(expected)

    def ask(each: tuple[Path, str]) -> str:
        text: str = server.post(each[0], model=each[1]).json()["text"]
        return text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, 2 * list(expected))) == 2 * list(expected.values())
    server.wait_until_idle()


@pytest.fixture
def narrow(recogniser: Recogniser, tmp_path: Path) -> Iterator[Running]:
    limits = Limits(max_megabytes=0.5, max_seconds=10, max_requests=1, idle_seconds=0.5)
    with running({"whole": recogniser}, tmp_path / "uploads", limits) as server:
        yield server


def test_large_and_long_files_are_refused(narrow: Running, tmp_path: Path) -> None:
    for seconds, code in ((60, "too_large"), (12, "too_long")):
        answer = narrow.post(write_talk(tmp_path / "a.wav", seconds, 0))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, code)
    narrow.wait_until_idle()


def begun(server: Running, body: bytes = b"", length: int = 1000) -> socket.socket:
    """Begins an upload and does not end it."""
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    )
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(head.encode() + body)
    deadline = time.monotonic() + 10
    while not server.service.num_requests:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return client


def test_a_full_queue_is_told_and_a_cut_upload_leaves_nothing(narrow: Running, audio: Path) -> None:
    client = begun(narrow, b"x" * 100)
    answer = narrow.post(audio)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) > 0
    client.close()
    narrow.wait_until_idle()
    assert narrow.post(audio).status_code == 200


def test_a_slow_upload_ends(narrow: Running) -> None:
    client = begun(narrow)
    client.settimeout(10)
    assert client.recv(100).startswith(b"HTTP/1.1 408 ")
    client.close()
    narrow.wait_until_idle()


def test_an_upload_without_a_stated_length_is_bounded(narrow: Running) -> None:
    def parts() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 100_000

    client = http.client.HTTPConnection("127.0.0.1", narrow.port, timeout=10)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    client.request("POST", TRANSCRIPTIONS, parts(), headers, encode_chunked=True)
    assert client.getresponse().status == 413
    client.close()
    narrow.wait_until_idle()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_does_not_wait_frees_its_place(
    server: Running, tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch, recogniser: Recogniser
) -> None:
    blocked = threading.Event()
    run = recogniser.piece_log_probs

    def slow(waveforms: Any) -> Any:
        blocked.wait(10)
        return run(waveforms)

    monkeypatch.setattr(recogniser, "piece_log_probs", slow)
    path = write_talk(tmp_path / "a.wav", 3.0, 0)
    fields = f'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\n{stream}\r\n--x--\r\n'
    content = path.read_bytes() + b"\r\n" + fields.encode()
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    client = begun(server, content, len(head) + len(content))
    while not server.service.thread.num_waiting:
        time.sleep(0.005)
    client.close()
    deadline = time.monotonic() + 5
    while server.service.num_requests:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    blocked.set()
    server.wait_until_idle()


def test_uploads_can_be_read_by_this_user_alone(server: Running, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    save = uploads._save

    def saved(*arguments: Any) -> Path:
        path = save(*arguments)
        modes.append(stat.S_IMODE(path.stat().st_mode))
        return path

    monkeypatch.setattr(uploads, "_save", saved)
    previous = os.umask(0)
    try:
        server.post(audio)
    finally:
        os.umask(previous)
    assert modes == [0o600]


def test_a_full_disk_is_told(server: Running, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "_save", full)
    answer = server.post(audio)
    assert (answer.status_code, answer.json()["error"]["type"]) == (507, "server_error")
    server.wait_until_idle()


def test_an_error_of_the_server_is_one_in_openais_form(
    server: Running, audio: Path, recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(recogniser, "piece_log_probs", broken)
    answer = server.post(audio)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:99"}, 200),
        ({"Host": "[::1]:99"}, 200),
        ({"Host": "speech.example"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_host_and_origin_must_be_this_server(
    recogniser: Recogniser, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    with running({"whole": recogniser}, tmp_path / "uploads", hosts=["Speech.example"]) as server:
        answer = requests.get(f"{server.url}/v1/models", headers=headers, timeout=60)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_keys_are_asked_for(recogniser: Recogniser, tmp_path: Path) -> None:
    with running({"whole": recogniser}, tmp_path / "uploads", keys=["first", "sécond"]) as server:

        def status(path: str, authorization: str | None = None) -> int:
            headers = {} if authorization is None else {"Authorization": authorization.encode()}
            return requests.get(server.url + path, headers=headers, timeout=60).status_code

        assert [status("/v1/models", key) for key in ("Bearer first", "bearer  first")] == [200, 200]
        wrong = (None, "", "Bearer", "Bearer ", "Bearer firs", "Bearer first2", "Basic first", "first")
        assert {status("/v1/models", key) for key in wrong} == {401}
        assert [status(path) for path in ("/health", "/ready", "/metrics", "/nowhere")] == [200, 200, 401, 401]
        error = requests.get(f"{server.url}/v1/models", timeout=60).json()["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


def test_limits_are_positive() -> None:
    with pytest.raises(InputError, match=r"^--max-streams must be more than 0, got 0"):
        Limits(max_streams=0)

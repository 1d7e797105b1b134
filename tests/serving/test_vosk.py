"""vosk's message sequences, with its clients' library."""

import concurrent.futures
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from ds2_jax.recognition.endpoints import ENDPOINTS
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.serving.options import Limits
from tests.serving.servers import Running, running, talk
from tests.small_runs import RATE

CONFIG = json.dumps({"config": {"sample_rate": RATE}})
EOF = '{"eof" : 1}'


@pytest.fixture(scope="module")
def server(
    recogniser: Recogniser, live: Recogniser, pausing: Recogniser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    models = {"live": live, "whole": recogniser, "pausing": pausing}
    with running(models, tmp_path_factory.mktemp("uploads")) as server:
        yield server


def client_of(server: Running, **options: Any) -> Connection:
    return connect(f"ws://127.0.0.1:{server.port}/vosk", **options)


def pcm(seconds: float, seed: int) -> bytes:
    return (talk(seconds, seed) * 32767).astype("<i2").tobytes()


def said(client: Connection, content: bytes, size: int = 8000) -> list[dict[str, Any]]:
    """Sends samples as vosk's clients do, which wait for an answer to each message."""
    answers = []
    for start in range(0, len(content), size):
        client.send(content[start : start + size])
        answers.append(json.loads(client.recv(timeout=30)))
    return answers


def ended(client: Connection) -> dict[str, Any]:
    """Sends the end; the server must close after its answer."""
    client.send(EOF)
    answer: dict[str, Any] = json.loads(client.recv(timeout=30))
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=30)
    return answer


def finals(recogniser: Recogniser, content: bytes, rate: int = RATE) -> list[FinalText]:
    stream = recogniser.stream(rate)
    events = stream.feed(np.frombuffer(content, "<i2")) + stream.finish()
    return [event for event in events if isinstance(event, FinalText)]


def texts_of(answers: list[dict[str, Any]]) -> str:
    return " ".join(answer["text"] for answer in answers if answer.get("text"))


@pytest.mark.parametrize("name", ["live", "whole"])
def test_partials_and_results_are_those_of_a_stream(server: Running, name: str, request: pytest.FixtureRequest) -> None:
    model: Recogniser = request.getfixturevalue("recogniser" if name == "whole" else name)
    content = pcm(12.0, 3)
    with client_of(server) as client:
        client.send(json.dumps({"config": {"sample_rate": RATE, "model": name}}))
        answers = [*said(client, content), ended(client)]
    expected = finals(model, content)
    assert texts_of(answers) == " ".join(each.text for each in expected)
    words = [word for answer in answers for word in answer.get("result", [])]
    assert [word["word"] for word in words] == [word.text for each in expected for word in each.words]
    assert [word["start"] for word in words] == [round(word.start, 3) for each in expected for word in each.words]
    assert all(word.keys() == {"conf", "start", "end", "word"} for word in words)
    assert any(answer.get("partial") for answer in answers)
    assert all(answer.keys() == {"partial", "stable"} for answer in answers if "partial" in answer)


def test_what_is_stable_stays(server: Running, live: Recogniser) -> None:
    by_beam = json.dumps({"config": {"sample_rate": RATE, "keywords": ["CU"]}})
    for config in (CONFIG, by_beam):
        with client_of(server) as client:
            client.send(config)
            answers = [*said(client, pcm(12.0, 3), 3200), ended(client)]
        stable, seen = "", 0
        for answer in answers:
            if "text" in answer:
                assert answer["text"].startswith(stable)
                stable = ""
            else:
                assert answer["stable"].startswith(stable)
                assert answer["partial"].startswith(answer["stable"])
                stable = answer["stable"]
                seen += bool(stable)
        assert seen > 3


def test_partial_words_have_times_that_stay(server: Running) -> None:
    with client_of(server) as client:
        client.send('{"config": {"sample_rate": 16000, "partial_words": true, "model": "pausing"}}')
        said(client, pcm(2.0, 5))
        client.send('{"reset" : 1}')
        client.recv(timeout=30)
        answers = said(client, pcm(12.0, 3))
        assert any(answer.get("text") for answer in answers), "no segment has ended"
        partial, last = answers[-1], ended(client)
    words = partial["partial_result"]
    assert " ".join(word["word"] for word in words) == partial["partial"] != ""
    assert words[0].keys() == {"conf", "start", "end", "word"}
    assert all(0 < word["conf"] <= 1 for word in words)
    before = [(word["start"], word["word"]) for word in words[:-1]]  # the last word may go on
    assert before == [(word["start"], word["word"]) for word in last["result"]][: len(before)]
    assert words[0]["start"] >= 2.0 + 4.0


def test_keywords_and_phrases_are_hot_words(live: Recogniser, tmp_path: Path) -> None:
    content = pcm(3.0, 1)
    boost = 30.0  # the drawn weights are sure of what they write
    stream = live.streams.open(RATE, ENDPOINTS, live.decoder({"CU": boost}))
    events = stream.feed(np.frombuffer(content, "<i2")) + stream.finish()
    expected = " ".join(event.text for event in events if isinstance(event, FinalText))
    with running({"live": live}, tmp_path / "uploads", Limits(hot_word_boost=boost)) as server:
        found = []
        for words in ({"keywords": ["cu"]}, {"phrase_list": ["cu", "[unk]", "7"]}, {}):
            with client_of(server) as client:
                client.send(json.dumps({"config": {"sample_rate": RATE, **words}}))
                found.append(texts_of([*said(client, content), ended(client)]))
    assert found[0] == found[1] == expected != found[2]


def test_a_stream_that_fails_is_told_and_others_go_on(
    server: Running, live: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret")

    with client_of(server) as client:
        client.send(CONFIG)
        said(client, pcm(1.0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(live.streams, "feed", broken)
            client.send(pcm(1.0, 1))
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "the server could not recognise the stream")
    server.wait_until_idle()
    with client_of(server) as client:
        client.send(CONFIG)
        assert said(client, pcm(1.0, 0))


def test_settings_may_come_late_and_change_what_is_written(server: Running, live: Recogniser) -> None:
    content = pcm(3.0, 1)
    with client_of(server) as client:
        client.send(CONFIG)
        said(client, content)
        client.send('{"config": {"max_alternatives": 2}}')
        answer = ended(client)
    [best] = answer["alternatives"]
    assert best["text"] == " ".join(each.text for each in finals(live, content))
    assert best.keys() == {"confidence", "result", "text"}
    assert best["result"][0].keys() == {"start", "end", "word"}
    with client_of(server) as client:
        client.send('{"config": {"sample_rate": 16000, "words": false}}')
        said(client, content)
        assert ended(client).keys() == {"text"}


def test_a_reset_ends_the_text_and_the_stream_goes_on(server: Running, live: Recogniser) -> None:
    first, second = pcm(2.0, 1), pcm(2.0, 2)
    with client_of(server) as client:
        client.send(CONFIG)
        said(client, first)
        client.send('{"reset" : 1}')
        reset = json.loads(client.recv(timeout=30))
        said(client, second)
        last = ended(client)
    assert [reset["text"], last["text"]] == [
        texts_of([{"text": e.text} for e in finals(live, c)]) for c in (first, second)
    ]
    assert last["result"][0]["start"] >= 2.0


def test_a_stream_without_sound_has_an_empty_text(server: Running) -> None:
    with client_of(server) as client:
        assert ended(client) == {"text": ""}
    with client_of(server) as client:
        assert said(client, bytes(4000)) == [{"partial": "", "stable": ""}]
        assert ended(client) == {"text": ""}


def test_the_rate_is_8000_hz_or_that_of_a_wav_header(server: Running, live: Recogniser) -> None:
    content = pcm(3.0, 4)
    header = b"RIFF\0\0\0\0WAVE" + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    header += b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(content))
    for sent, rate in ((content, 8000), (header + content, RATE)):
        with client_of(server) as client:
            answers = [*said(client, sent), ended(client)]
        assert texts_of(answers) == " ".join(each.text for each in finals(live, content, rate))


@pytest.mark.parametrize(
    ("form", "rule"),
    [
        ((1, 2, RATE, 4 * RATE, 4, 16), "one channel"),
        ((3, 1, RATE, 4 * RATE, 4, 32), "16 bits"),
        ((7, 1, RATE, RATE, 1, 8), "coding 7"),
        ((1, 1, 0, 0, 2, 16), "a rate of"),
    ],
)
def test_a_wav_header_of_another_coding_is_refused(server: Running, form: tuple[int, ...], rule: str) -> None:
    """Its samples would be noise."""
    header = b"RIFF\0\0\0\0WAVE" + struct.pack("<4sIHHIIHH", b"fmt ", 16, *form) + b"data" + bytes(4)
    with client_of(server) as client:
        client.send(header + bytes(8000))
        with pytest.raises(ConnectionClosed) as error:
            client.recv()
    assert error.value.rcvd is not None
    assert rule in error.value.rcvd.reason


def test_samples_may_be_cut_inside(server: Running, live: Recogniser) -> None:
    content = pcm(2.0, 1)
    with client_of(server) as client:
        client.send(CONFIG)
        answers = [*said(client, content, 3333), ended(client)]
    assert texts_of(answers) == " ".join(each.text for each in finals(live, content))


def test_streams_at_once_get_their_own_texts(server: Running, live: Recogniser) -> None:
    contents = [pcm(3.0 + i / 2, i) for i in range(8)]

    def hear(content: bytes) -> str:
        with client_of(server) as client:
            client.send(CONFIG)
            return texts_of([*said(client, content, 4000), ended(client)])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hear, contents))
    assert found == [" ".join(each.text for each in finals(live, content)) for content in contents]
    assert len(set(found)) == len(found)
    server.wait_until_idle()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no json", "text messages must be JSON"),
        ("[1]", "text messages must be JSON objects"),
        ('{"config": 1}', "config must be an object"),
        ('{"config": {"sample_rate": 1}}', "sample_rate must be 4000 to 768000"),
        ('{"config": {"sample_rate": NaN}}', "sample_rate must be 4000 to 768000"),
        ('{"config": {"model": "other"}}', "model must be the name of a model"),
        ('{"config": {"keywords": "one"}}', "keywords must be a list of texts"),
        ('{"config": {"phrase_list": [1]}}', "phrase_list must be a list of texts"),
        ("[" * 100_000, "text messages must be JSON"),
    ],
)
def test_a_message_that_breaks_the_protocol_closes(server: Running, message: str, reason: str) -> None:
    with client_of(server) as client:
        client.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1003, reason)


def refused(server: Running, **options: Any) -> int:
    with pytest.raises(InvalidStatus) as error, client_of(server, **options):
        pass
    return error.value.response.status_code


def test_streams_are_bounded_and_idle_ones_end(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads", Limits(max_streams=1, idle_seconds=0.3)) as server:
        with client_of(server) as client:
            assert refused(server) == 429
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
        server.wait_until_idle()
        with client_of(server) as client:  # goes away without a word
            client.send(CONFIG)
            said(client, pcm(1.0, 0))
            client.socket.close()
        server.wait_until_idle()
        assert live.streams.steps is not None
        steps = live.streams.steps
        deadline = time.monotonic() + 5
        while len(steps._free) != steps.capacity:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["vosk", "openai-insecure-api-key.key"], "vosk"),
        (["openai-insecure-api-key.other", "openai-insecure-api-key.key", "openai-beta.v1"], None),
    ],
)
def test_browsers_send_the_key_as_a_subprotocol(
    live: Recogniser, tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    with running({"live": live}, tmp_path / "uploads", keys=["first", "key"]) as server:
        with client_of(server, subprotocols=offered) as client:
            assert client.subprotocol == chosen
            assert ended(client) == {"text": ""}
        for wrong in ("vosk", "key", "openai-insecure-api-key.", "openai-insecure-api-key.ke", "Bearer.key"):
            assert refused(server, subprotocols=["vosk", wrong]) == 401


def test_keys_hosts_and_origins_hold_for_websockets(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads", keys=["key"]) as server:
        good = {"Authorization": "Bearer key"}
        with client_of(server, additional_headers=good) as client:
            assert ended(client) == {"text": ""}
        assert refused(server) == 401
        assert refused(server, additional_headers=good, origin="http://evil.example") == 403
        ours = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(InvalidStatus) as error, connect("ws://evil.example/vosk", sock=ours):
            pass
        assert error.value.response.status_code == 403
        server.service.draining = True
        assert refused(server, additional_headers=good) == 503

"""OpenAI's Realtime transcription, message by message."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ds2_jax.audio.g711 import decode_alaw, decode_ulaw
from ds2_jax.recognition.endpoints import Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Limits
from tests.serving.realtime_client import (
    COMMITTED,
    COMPLETED,
    DELTA,
    FAILED,
    RATE,
    Client,
    Message,
    connected,
    deltas,
    finals,
    pcm,
    refused,
    text_of,
    updating,
)
from tests.serving.servers import Running, running


@pytest.fixture(scope="module")
def server(
    recogniser: Recogniser, live: Recogniser, pausing: Recogniser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    limits = Limits(hot_word_boost=30.0)  # the drawn weights are sure of what they write
    models = {"live": live, "whole": recogniser, "pausing": pausing}
    with running(models, tmp_path_factory.mktemp("uploads"), limits) as server:
        yield server
        server.wait_until_idle()


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with connected(server) as connection:
        yield Client(connection)


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


@pytest.mark.parametrize("name", ["live", "pausing", "whole"])
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
    client.append(bytes(2 * RATE) + pcm(1.0, 1))  # a second of silence first
    assert 14_900 <= client.until("input_audio_buffer.speech_started")[-1]["audio_start_ms"] < 16_000
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


def test_an_unknown_model_is_refused(server: Running) -> None:
    assert refused(server, "?model=gpt-realtime") == 404
    with connected(server, "?model=whole") as connection:
        assert Client(connection).first["session"]["audio"]["input"]["transcription"]["model"] == "whole"

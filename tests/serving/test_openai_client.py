"""The real client of OpenAI, in an environment of its own."""

import json
from pathlib import Path

import pytest

from ds2_jax.recognition.formats import to_srt, to_vtt
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Limits
from tests.environments import called
from tests.serving.servers import running, write_talk

CLIENT = Path(__file__).with_name("openai_client.py")
COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.mark.slow
def test_openais_client_gets_what_transcribe_gives(
    recogniser: Recogniser, pausing: Recogniser, tmp_path: Path, openai_python: Path
) -> None:
    audio = write_talk(tmp_path / "a.wav", 48.0, 5)
    spoken = write_talk(tmp_path / "b.wav", 14.0, 3, 24_000)
    expected, expected_live = recogniser.transcribe(audio), pausing.transcribe(spoken)
    models = {"whole": recogniser, "live": pausing}
    with running(models, tmp_path / "uploads", Limits(hot_word_boost=30), keys=["key"]) as server:
        got = json.loads(called(openai_python, CLIENT, server.url, audio, spoken, cwd=tmp_path))
        server.wait_until_idle()
    assert got["models"] == ["whole", "live"]
    assert got["json"]["text"] == got["verbose_json"]["text"] == expected.text
    assert got["verbose_json"]["duration"] == 48.0
    assert [each["text"] for each in got["verbose_json"]["segments"]] == [
        each.readings[0].text for each in expected.segments
    ]
    assert got["text"] == f"{expected.text}\n"
    assert (got["srt"], got["vtt"]) == (to_srt(expected), to_vtt(expected))
    assert got["words"] == [word.text for word in expected.words]
    assert "".join(got["logprobs"]) == expected.text
    *deltas, done = got["events"]
    assert len(deltas) > 1
    assert "".join(each["delta"] for each in deltas) == done["text"] == expected.text
    assert got["hot"] != expected.text
    assert got["wrong model"] == ["NotFoundError", "model_not_found", "model"]
    assert got["wrong audio"] == ["BadRequestError", "unreadable_audio", "file"]
    assert got["wrong key"] == "invalid_api_key"
    assert got["at once"] == 3 * [expected.text]
    texts = [each.readings[0].text for each in expected_live.segments]
    assert len(texts) > 1
    for name, turns in (("committed", [expected_live.text]), ("vad", texts)):
        *events, error = got[name]
        assert error["error"]["event_id"] == "empty"
        completed = [each for each in events if each["type"] == COMPLETED]
        assert [each["transcript"] for each in completed] == turns
        assert ["".join(word["token"] for word in each["logprobs"]) for each in completed] == turns
        for each in completed:
            own = [event for event in events if event.get("item_id") == each["item_id"] and "delta" in event]
            assert "".join(event["delta"] for event in own) == each["transcript"]

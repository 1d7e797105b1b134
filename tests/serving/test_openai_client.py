"""The real client of OpenAI, in an environment of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ds2_jax.recognition.formats import to_srt, to_vtt
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Limits
from tests.serving.servers import running, write_talk

CLIENT = Path(__file__).with_name("openai_client.py")
OPENAI = "openai==3.57.0"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the package."""
    folder = tmp_path_factory.mktemp("openai")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", OPENAI], check=True)
    return python


@pytest.mark.slow
def test_openais_client_gets_what_transcribe_gives(recogniser: Recogniser, tmp_path: Path, python: Path) -> None:
    audio = write_talk(tmp_path / "a.wav", 48.0, 5)
    expected = recogniser.transcribe(audio)
    with running({"whole": recogniser}, tmp_path / "uploads", Limits(hot_word_boost=30), keys=["key"]) as server:
        output = subprocess.run([python, CLIENT, server.url, audio], capture_output=True, text=True, check=True).stdout
        server.wait_until_idle()
    got = json.loads(output)
    assert got["models"] == ["whole"]
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

"""The OpenAPI document describes the routes that there are, and schemathesis finds nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Limits
from tests.serving.servers import running, write_talk

SCHEMATHESIS = "schemathesis==4.32.5"


def test_the_document_names_the_routes_and_their_methods(live: Recogniser, tmp_path: Path) -> None:
    with running({"live": live}, tmp_path / "uploads") as server:
        document = requests.get(f"{server.url}/openapi.json", timeout=60).json()
        assert document["openapi"] == "3.1.0"
        for path, operations in document["paths"].items():
            url = server.url + path.replace("{name}", "live")
            answer = requests.delete(url, timeout=60)
            assert (answer.status_code, answer.json()["error"]["type"]) == (405, "invalid_request_error")
            methods = {each.upper() for each in operations} - {"PARAMETERS"}
            assert {*answer.headers["allow"].split(", ")} - {"HEAD"} == methods, path
        audio = write_talk(tmp_path / "a.wav", 2.0, 1)
        verbose = server.post(audio, response_format="verbose_json", timestamp_granularities_=["word", "segment"])
        described = document["components"]["schemas"]["Verbose"]
        assert verbose.json().keys() == described["properties"].keys()
        assert set(described["required"]) == described["properties"].keys() - {"words", "segments"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operations", "excluded"),
    [
        # The schema cannot say what sound is, so that files that are right by it are refused.
        (["--exclude-path", "/transcribe"], "positive_data_acceptance"),
        # deepspeech.pytorch's answer to a wrong request has status 200.
        (["--include-path", "/transcribe"], "positive_data_acceptance,negative_data_rejection"),
    ],
)
def test_schemathesis_finds_nothing(
    operations: list[str], excluded: str, live: Recogniser, tmp_path: Path, schemathesis: Path
) -> None:
    with running({"live": live}, tmp_path / "uploads", Limits(hot_word_boost=3)) as server:
        server.service.prepare_hot_words()
        words = [
            str(schemathesis),
            "run",
            f"{server.url}/openapi.json",
            "--checks",
            "all",
            "--exclude-checks",
            excluded,
        ]
        words += ["--phases", "examples,coverage,fuzzing", "--max-examples", "50", "--seed", "1", *operations]
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        server.wait_until_idle()
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in an environment of its own."""
    folder = tmp_path_factory.mktemp("schemathesis")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", SCHEMATHESIS], check=True)
    return folder / "bin/schemathesis"

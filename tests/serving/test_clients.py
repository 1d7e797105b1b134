"""The examples of docs/serving.md with real clients, which know nothing of this server: each prints the right text."""

import functools
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2_jax.recognition.recogniser import Recogniser
from tests import environments
from tests.environments import called, install_node, install_python, python312
from tests.serving.servers import Running, running, write_talk

pytestmark = pytest.mark.slow

NAME = "an4_live"
PACKAGES = "node@22.23.3", "openai@7.59.0", "ai@7.0.173", "@ai-sdk/openai@4.0.118", "ws@8.23.0"
examples = functools.partial(environments.examples, "serving.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the examples run."""
    folder = tmp_path_factory.mktemp("examples")
    write_talk(folder / "talk.wav", 14.0, 3, 24_000)
    return folder


@pytest.fixture(scope="module")
def text(pausing: Recogniser, folder: Path) -> str:
    """The text of the file."""
    transcript = pausing.transcribe(folder / "talk.wav")
    assert len(transcript.segments) > 1
    return transcript.text


@pytest.fixture(scope="module")
def server(pausing: Recogniser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running({NAME: pausing}, tmp_path_factory.mktemp("uploads")) as server:
        yield server
        server.wait_until_idle()


@pytest.fixture(scope="module")
def node(folder: Path) -> Path:
    """Node with the packages of the examples, in their folder."""
    return install_node(folder, *PACKAGES) / ".bin/node"


def printed(program: Path, code: str, folder: Path, server: Running, name: str) -> str:
    """Runs an example and returns what it prints, with single spaces."""
    (folder / name).write_text(code.replace("localhost:8000", f"localhost:{server.port}"), encoding="utf-8")
    return called(program, name, cwd=folder)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["sync", "async", "realtime"])
def test_openai_for_python(folder: Path, server: Running, openai_python: Path, text: str, index: int) -> None:
    code = examples("OpenAI for Python")[index]
    assert printed(openai_python, code, folder, server, "openai_.py") == text


@pytest.mark.parametrize("heading", ["SpeechRecognition", "vosk for Python"])
def test_other_clients_in_python(folder: Path, server: Running, openai_python: Path, text: str, heading: str) -> None:
    (code,) = examples(heading)
    assert printed(openai_python, code, folder, server, "example.py") == text


@pytest.mark.parametrize(
    ("heading", "index"),
    [("OpenAI for JavaScript", 0), ("OpenAI for JavaScript", 1), ("Vercel's AI SDK", 0), ("vosk for JavaScript", 0)],
)
def test_clients_in_javascript(folder: Path, server: Running, node: Path, text: str, heading: str, index: int) -> None:
    code = examples(heading)[index]
    assert printed(node, code, folder, server, "example.js") == text


@pytest.mark.parametrize("kind", ["websocket", "ws"])
def test_the_realtime_classes_of_the_npm_package(
    folder: Path, server: Running, node: Path, text: str, kind: str
) -> None:
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split()
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "certificate.pem"]
    called("openssl", *words, cwd=folder)
    shutil.copy(Path(__file__).with_name("realtime_client.mjs"), folder)
    env = {**os.environ, "NODE_EXTRA_CA_CERTS": str(folder / "certificate.pem")}
    assert called(node, "realtime_client.mjs", kind, str(server.port), NAME, cwd=folder, env=env) == text


def test_curl(folder: Path, server: Running, text: str) -> None:
    (code,) = examples("curl")
    for line, key in zip(code.splitlines(), ("text", "transcription"), strict=True):
        command = shlex.split(line.replace("localhost:8000", f"localhost:{server.port}"), comments=True)
        assert f'"{key}":"{text}"' in called(*command, "--silent", cwd=folder)


@pytest.mark.parametrize("option", ["--stt-models", "--stt-realtime-models"])
def test_home_assistant(folder: Path, server: Running, wyoming: Path, text: str, option: str) -> None:
    (code,) = examples("Home Assistant")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    changes = {"localhost:8000": f"localhost:{server.port}", ":10300": f":{port}", "--stt-models": option}
    for old, new in changes.items():
        code = code.replace(old, new)
    bridge = subprocess.Popen([wyoming, *shlex.split(code)[1:]], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(port, bridge)
        client = Path(__file__).with_name("wyoming_client.py")
        assert called(wyoming, client, str(port), "talk.wav", NAME, cwd=folder) == text
    finally:
        bridge.terminate()
        errors = bridge.communicate(timeout=30)[1]
    # The client may go before it has read all events, which resets its connection to the bridge.
    faults = re.findall(r"^(\w+(?:\.\w+)*(?:Error|Exception)\b.*)", errors, re.MULTILINE)
    assert [each for each in faults if not each.startswith("ConnectionResetError")] == []


@pytest.fixture(scope="module")
def wyoming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has wyoming-openai."""
    return install_python(tmp_path_factory.mktemp("wyoming"), "wyoming-openai==0.8.0", interpreter=python312())


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """Waits until a process listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("it does not listen")

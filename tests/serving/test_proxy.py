"""The page and the API behind nginx, with the settings that docs/serving-operations.md gives."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import Network
from tests.browser import Browser
from tests.conftest import NO_NGINX, ROOT
from tests.processes import free_port
from tests.serving.pages import done, drop, finish, open_page, speak, words
from tests.serving.servers import Running, running, write_talk


@pytest.fixture
def server(wordy: Recogniser, tmp_path: Path) -> Iterator[Running]:
    network = Network(port=0, root_path="/speech")
    with running({"wordy": wordy}, tmp_path / "uploads", network=network) as server:
        yield server


@pytest.fixture
def proxied(server: Running, tmp_path: Path) -> Iterator[str]:
    """The address of the server behind nginx."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip(NO_NGINX)
    document = (ROOT / "docs/serving-operations.md").read_text(encoding="utf-8")
    [location] = re.findall(r"^location /speech/ \{.*?^\}$", document, re.DOTALL | re.MULTILINE)
    port = free_port()
    settings = tmp_path / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    settings.write_text(
        f"daemon off; {user} pid {tmp_path}/pid; error_log {tmp_path}/errors;\nevents {{}}\nhttp {{\n"
        + "".join(
            f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"access_log off;\nserver {{\nlisten 127.0.0.1:{port};\n"
        + location.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        + "\n}\n}\n"
    )
    process = subprocess.Popen([nginx, "-p", tmp_path, "-c", settings, "-e", tmp_path / "errors"])
    try:
        deadline = time.monotonic() + 10
        while not is_open(port):
            assert process.poll() is None, (tmp_path / "errors").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/speech"
    finally:
        process.terminate()
        process.wait(10)


def is_open(port: int) -> bool:
    with socket.socket() as own:
        return own.connect_ex(("127.0.0.1", port)) == 0


def test_the_api_names_the_path_of_the_proxy(wordy: Recogniser, proxied: str, tmp_path: Path) -> None:
    audio = write_talk(tmp_path / "talk.wav", 6.0, 3)
    with audio.open("rb") as file:
        response = requests.post(f"{proxied}/v1/audio/transcriptions", files={"file": file}, timeout=30)
    assert response.json()["text"] == wordy.transcribe(audio).text
    assert requests.get(f"{proxied}/openapi.json", timeout=10).json()["servers"] == [{"url": "/speech"}]


@pytest.mark.slow
def test_the_page_works_under_a_path(
    wordy: Recogniser, proxied: str, server: Running, browser: Browser, tmp_path: Path
) -> None:
    audio = write_talk(tmp_path / "talk.wav", 6.0, 3)
    open_page(browser, proxied)
    drop(browser, audio)
    done(browser)
    assert words(browser) == [word.text for word in wordy.transcribe(audio).words]
    speak(browser, 30)
    finish(browser)
    server.wait_until_idle()
    assert words(browser)
    assert browser.complaints == []
    live = proxied.replace("http", "ws", 1)
    assert [each for each in browser.requests if not each.startswith((proxied, live, "blob:"))] == []

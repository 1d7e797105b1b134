"""Downloads against a local server that breaks off, refuses or ignores ranges."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ds2_jax.system.download import download, file_md5
from ds2_jax.system.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under every path; the attributes set how it misbehaves."""

    daemon_threads = True
    ranges = True  # whether it honours Range
    stop_after: int | None = None  # bytes sent before it closes the connection
    states_length = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested: list[str | None] = []  # the Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/corpus.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requested.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.states_length:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.server.stop_after])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("states_length", [True, False])
def test_download(server: Server, tmp_path: Path, states_length: bool, capsys: pytest.CaptureFixture[str]) -> None:
    server.states_length = states_length
    path = tmp_path / "new folder" / "corpus.tar.gz"
    download(server.url, path, hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]  # no .part is left
    output = capsys.readouterr()
    assert "corpus.tar.gz" in output.err
    assert "300k" in output.err
    assert output.out == ""


def test_what_is_there_is_not_downloaded(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "corpus.tar.gz"
    path.write_bytes(b"old")
    download(server.url, path)
    assert path.read_bytes() == b"old"
    assert server.requested == []


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_then_resume(server: Server, tmp_path: Path, ranges: bool) -> None:
    path = tmp_path / "corpus.tar.gz"
    server.ranges = ranges
    server.stop_after = 100_000
    message = (
        f"^{server.url} must be downloadable to .*, got 100000 of 300000 bytes before the connection closed. Call us.$"
    )
    with pytest.raises(InputError, match=message):
        download(server.url, path, advice="Call us.")
    assert not path.exists()
    server.stop_after = None
    download(server.url, path)
    assert path.read_bytes() == CONTENT
    assert server.requested == [None, "bytes=100000-"]


def test_part_longer_than_the_file_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(CONTENT + b"!")
    download(server.url, tmp_path / "corpus.tar.gz")
    assert (tmp_path / "corpus.tar.gz").read_bytes() == CONTENT
    assert server.requested == ["bytes=300001-", None]


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    found = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(
        InputError, match=f"^{server.url} must have the SHA-256 {'0' * 64}, got {found}. Run the command"
    ):
        download(server.url, tmp_path / "corpus.tar.gz", "0" * 64)
    assert list(tmp_path.iterdir()) == []  # else the next call would resume from wrong bytes


def test_md5(server: Server, tmp_path: Path) -> None:
    found = hashlib.md5(CONTENT).hexdigest()
    download(server.url, tmp_path / "corpus.tar.gz", found)
    assert file_md5(tmp_path / "corpus.tar.gz") == found
    with pytest.raises(InputError, match=f"^{server.url} must have the MD5 {'0' * 32}, got {found}. Run the command"):
        download(server.url, tmp_path / "other.tar.gz", "0" * 32)


def test_no_bar_where_the_caller_has_one(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(server.url, tmp_path / "corpus.tar.gz", shows_bar=False)
    assert capsys.readouterr().err == ""


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as closed:  # then its port is free
        url = closed.url
    with pytest.raises(
        InputError, match=f"^{url} must be downloadable to .*, got .*Connection refused.*. Run the command"
    ):
        download(url, tmp_path / "corpus.tar.gz")


def test_refused_by_the_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.send_error(404))
    with pytest.raises(
        InputError, match=f"^{server.url} must be downloadable to .*, got HTTP Error 404: Not Found. Run the"
    ):
        download(server.url, tmp_path / "corpus.tar.gz")

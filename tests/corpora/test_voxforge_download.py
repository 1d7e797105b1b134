"""VoxForge from a local server."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ds2_jax import cli
from ds2_jax.corpora import voxforge
from ds2_jax.system.errors import InputError
from tests.corpora.voxforge_submissions import SPLITS, left_out, rows_of, write_submission
from tests.speech import tree


class Server(http.server.ThreadingHTTPServer):
    """Serves the submissions of a folder, and their index as Apache writes it; the attributes set how it misbehaves."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, folder=folder))
        self.folder = folder
        self.links: list[str] = []  # more of the index
        self.cut: set[str] = set()  # names whose connection breaks half way
        self.requested: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/Main/16kHz_16bit/"

    def index(self) -> bytes:
        names = sorted(path.name for path in self.folder.iterdir())
        links = [f'<a href="{name}">{name[:20]}..&gt;</a> 2008-01-01 10:00  2.1M' for name in names] + self.links
        order = '<a href="?C=N;O=D">Name</a> <a href="/Main/">Parent Directory</a>'
        return f"<html><body><pre>{order}\n{chr(10).join(links)}\n</pre></body></html>".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def __init__(self, *args: Any, folder: Path) -> None:
        self.folder = folder
        super().__init__(*args)

    def do_GET(self) -> None:
        name = unquote(self.path.removeprefix("/Main/16kHz_16bit/"))
        wanted = self.headers["Range"]
        self.server.requested.append((name, wanted))
        path = self.folder / name
        if name and not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes() if name else self.server.index()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2 if name in self.server.cut else None])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(archives) as server:
        monkeypatch.setattr(voxforge, "URL", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download(server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "voxforge", "--root", str(tmp_path / "data")]) == 0
    folder = tmp_path / "data/voxforge"
    output = capsys.readouterr()
    assert output.out == f"{folder}\n"
    store = tmp_path / "data/voxforge-archives"
    assert output.err.startswith(
        f"{folder}: VoxForge, 12 submissions from {store}\n  train  0.00 h  20 utterances  8 speakers  50 words\n"
    )
    assert tree(store) == tree(archives)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "source.json",
        *(f"{s}.jsonl" for s in SPLITS),
    }
    assert rows_of(folder) == rows_of(voxforge.prepare(tmp_path / "local", archives))
    assert sorted(name for name, _ in server.requested) == ["", *sorted(path.name for path in archives.iterdir())]


def test_submissions_that_cannot_be_had_are_named(
    server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.links = ['<a href="lost-20080101-xyz.tgz">lost</a>']
    whole = (archives / "b-20080101-xyz.tgz").read_bytes()
    (archives / "b-20080101-xyz.tgz").write_bytes(whole[:-100])
    folder = voxforge.prepare(tmp_path / "data")
    assert left_out(folder) == {
        "lost-20080101-xyz.tgz": "missing archive",
        "b-20080101-xyz.tgz": "unreadable archive",
    }
    assert (
        f"  delete {folder} and run again to fetch the missing submissions; the other downloads are kept\n"
        in capsys.readouterr().err
    )
    (archives / "b-20080101-xyz.tgz").write_bytes(whole)
    server.requested.clear()
    folder.rename(tmp_path / "old")
    voxforge.prepare(tmp_path / "data")
    assert {name for name, _ in server.requested} == {"", "lost-20080101-xyz.tgz", "b-20080101-xyz.tgz"}
    assert left_out(folder) == {"lost-20080101-xyz.tgz": "missing archive"}


def test_a_network_that_fails_makes_no_corpus_and_is_resumed(
    server: Server, archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut = {"c-20080101-xyz.tgz", "d-20080101-xyz.tgz"}
    message = (
        rf"^{server.url} must serve its submissions, got errors for 2 of 12: {server.url}c-20080101-xyz\.tgz must be "
        r"downloadable to .*, got \d+ of \d+ bytes before the connection closed\. Run again to resume, or name a"
    )
    with pytest.raises(InputError, match=message):
        voxforge.prepare(tmp_path / "data")
    assert not (tmp_path / "data/voxforge").exists()
    server.cut = set()
    server.requested.clear()
    voxforge.prepare(tmp_path / "data")
    half = len((archives / "c-20080101-xyz.tgz").read_bytes()) // 2
    assert ("c-20080101-xyz.tgz", f"bytes={half}-") in server.requested
    assert len(server.requested) == 3
    assert tree(tmp_path / "data/voxforge-archives") == tree(archives)


def test_an_index_without_submissions(server: Server, archives: Path, tmp_path: Path) -> None:
    for path in archives.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=rf"^{server.url} must list submissions \(\.tgz\), got none\. Run again to"):
        voxforge.prepare(tmp_path / "data")


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(voxforge, "URL", "http://127.0.0.1:9/")  # discard: nothing listens
    with pytest.raises(
        InputError, match=r"^http://127\.0\.0\.1:9/ must be downloadable to .*, got .*refused.*--archives FOLD"
    ):
        voxforge.prepare(tmp_path / "data")


def test_links_of_an_index() -> None:
    url = voxforge.URL
    path = "/downloads/SpeechCorpus/Trunk/Audio/Main/16kHz_16bit"
    page = (
        "<A HREF='b.tgz'>x</A> <a href=a.tgz>x</a><a href='./e.tgz'>"
        f'<a href="{url}c.tgz"> <a href = "{path}/d.tgz"> <a href=\'f g.tgz\'>'
        "<a href='b.tgz'> <a href='../f.tgz'> <a href='http://elsewhere/g.tgz'> <a href='h.tgz?x'> <a href='.h.tgz'>"
        "<a href='i.txt'> <a href='/etc/j.tgz'> <a href='http://[k.tgz'>"
    )
    assert voxforge._linked(page) == ["a.tgz", "b.tgz", "c.tgz", "d.tgz", "e.tgz", "f g.tgz"]


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("a%20b.tgz", "a b.tgz"),
        ("Jos%C3%A9.tgz", "José.tgz"),
        ("Jos%E9.tgz", "Jos%E9.tgz"),
        ("..%2F..%2Fa.tgz", "..%2F..%2Fa.tgz"),
        ("%2Fetc%2Fa.tgz", "%2Fetc%2Fa.tgz"),
        ("%2Ea.tgz", "%2Ea.tgz"),
        ("a%00.tgz", "a%00.tgz"),
    ],
)
def test_a_link_names_a_file_of_the_folder(link: str, name: str) -> None:
    assert voxforge._file_name(link) == name


def test_odd_names_are_fetched(server: Server, archives: Path, tmp_path: Path) -> None:
    for name in ("José-20080101-a", "x y-20080101-a"):
        write_submission(archives, name)
    voxforge.prepare(tmp_path / "data")  # the index does not quote them
    assert {"José-20080101-a.tgz", "x y-20080101-a.tgz"} <= tree(tmp_path / "data/voxforge-archives").keys()

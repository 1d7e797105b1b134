"""A model is a path, the name of one in the package, or an address with its SHA-256."""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ds2_jax.runs import named
from ds2_jax.runs.named import find_model, home
from ds2_jax.system.errors import InputError

CONTENT = b"weights"
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, a cache of its own, and a package with the model `letters`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "package"
    for folder in (package, tmp_path / "here"):
        folder.mkdir()
    (package / "letters.safetensors").write_bytes(CONTENT)
    monkeypatch.setattr(named, "PRETRAINED", package)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


class Server(http.server.ThreadingHTTPServer):
    """Has CONTENT under every path, gives it slowly, and notes what it is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for i in range(len(CONTENT)):
            self.wfile.write(CONTENT[i : i + 1])
            time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_name_is_a_model_of_the_package(here: Path) -> None:
    assert find_model(Path("letters")) == here / "package/letters.safetensors"


@pytest.mark.parametrize("path", ["runs/letters", "numbers", "letters.safetensors", ""])
def test_other_paths_stay_as_they_are(path: str, here: Path) -> None:
    (here / "here/runs").mkdir()
    assert find_model(Path(path)) == Path(path)


def test_a_path_of_that_name_wins(here: Path) -> None:
    Path("letters").mkdir()
    assert find_model(Path("letters")) == Path("letters")


def test_an_address_is_fetched_once(here: Path, server: Server) -> None:
    wanted = Path(f"{server.url}/models/a.safetensors#sha256={SUM.upper()}")
    for _ in range(2):
        assert find_model(wanted).read_bytes() == CONTENT
    assert find_model(wanted).is_relative_to(here / "cache")
    assert server.asked == ["/models/a.safetensors"]


def test_several_may_want_it_at_once(here: Path, server: Server) -> None:
    """As the processes of a training do."""
    wanted = Path(f"{server.url}/a.safetensors#sha256={SUM}")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find_model(wanted).read_bytes(), range(4)))
    assert found == [CONTENT] * 4
    assert len(server.asked) == 1


def test_a_damaged_file_is_fetched_again(here: Path, server: Server) -> None:
    wanted = Path(f"{server.url}/a.safetensors#sha256={SUM}")
    find_model(wanted).write_bytes(b"damage")
    assert find_model(wanted).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_another_content_is_refused_and_not_kept(here: Path, server: Server) -> None:
    with pytest.raises(InputError, match=f"must have the SHA-256 {'0' * 64}, got {SUM}"):
        find_model(Path(f"{server.url}/a.onnx#sha256={'0' * 64}"))
    assert not list((here / "cache").rglob("*.onnx*"))


def test_more_than_a_model_can_have_is_refused(here: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "MAX_BYTES", 3)
    with pytest.raises(InputError, match="more than 3 bytes"):
        find_model(Path(f"{server.url}/a.onnx#sha256={SUM}"))


@pytest.mark.parametrize(
    "name",
    [
        "https://example.org/a.safetensors",
        "https://example.org/a.safetensors#sha256=123",
        f"https://example.org/a.ckpt#sha256={SUM}",
        f"https://example.org/#sha256={SUM}",
        f"https://example.org/a.onnx?x=1#sha256={SUM}",
        f"HTTPS://example.org/..\\a.onnx#sha256={SUM}",
    ],
)
def test_an_address_without_a_sum_or_of_another_kind_is_refused(name: str, here: Path) -> None:
    with pytest.raises(InputError, match=r"address of a \.safetensors or \.onnx file with its SHA-256"):
        find_model(Path(name))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "[::1", "a..b", "h/mod\u00e8le"])
def test_an_address_that_leads_nowhere_is_told(host: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match="must be downloadable to"):
        find_model(Path(f"http://{host}/a.onnx#sha256={SUM}"))


def test_without_a_cache_an_address_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "cache_folder", lambda _: Path("/dev/null/x"))
    with pytest.raises(InputError, match="must be downloadable into the cache"):
        find_model(Path(f"https://example.org/a.onnx#sha256={SUM}"))


def test_results_of_a_model_that_is_not_the_users_lie_here(here: Path, server: Server) -> None:
    fetched = find_model(Path(f"{server.url}/spoken.onnx#sha256={SUM}"))
    assert home(fetched) == Path(f"spoken-{SUM[:8]}-results")
    for path in (find_model(Path("letters")), Path("../package/letters.safetensors")):
        assert home(path) == Path(f"letters-{SUM[:8]}-results")
    own = here / ("0" * 64) / "a.onnx"
    own.parent.mkdir()
    own.write_bytes(CONTENT)
    assert home(own) == own.parent

"""A model is a path, the name of one in the package, or an address with its SHA-256."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2_jax.runs import named, run_folder
from ds2_jax.runs.named import find_model
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
    for module in (named, run_folder):
        monkeypatch.setattr(module, "PRETRAINED", package)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has CONTENT under every path, and counts what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    asked: list[str] = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()
    assert len(asked) <= 1, asked


def test_a_name_is_a_model_of_the_package(here: Path) -> None:
    assert find_model(Path("letters")) == here / "package/letters.safetensors"
    assert named.pretrained() == ["letters"]


@pytest.mark.parametrize("path", ["./letters", "runs/letters", "numbers", "letters.safetensors", ""])
def test_other_paths_stay_as_they_are(path: str, here: Path) -> None:
    (here / "here/runs").mkdir()
    name = Path(path)
    assert find_model(name) == (here / "package/letters.safetensors" if path == "./letters" else name)


def test_a_path_of_that_name_wins(here: Path) -> None:
    Path("letters").mkdir()
    assert find_model(Path("letters")) == Path("letters")


def test_an_address_is_fetched_once(here: Path, address: str) -> None:
    wanted = Path(f"{address}/models/a.safetensors#sha256={SUM}")
    for _ in range(2):  # the server must be asked once
        assert find_model(wanted).read_bytes() == CONTENT
    assert find_model(wanted).is_relative_to(here / "cache")


def test_another_content_is_refused_and_not_kept(here: Path, address: str) -> None:
    with pytest.raises(InputError, match=f"must have the SHA-256 {'0' * 64}, got {SUM}"):
        find_model(Path(f"{address}/a.onnx#sha256={'0' * 64}"))
    assert not list((here / "cache").rglob("*.onnx*"))


@pytest.mark.parametrize(
    "name",
    [
        "https://example.org/a.safetensors",
        "https://example.org/a.safetensors#sha256=123",
        f"https://example.org/a.ckpt#sha256={SUM}",
        f"https://example.org/#sha256={SUM}",
        f"https://example.org/a.onnx?x=1#sha256={SUM}",
    ],
)
def test_an_address_without_a_sum_or_of_another_kind_is_refused(name: str, here: Path) -> None:
    with pytest.raises(InputError, match=r"address of a \.safetensors or \.onnx file with its SHA-256"):
        find_model(Path(name))


def test_results_of_a_model_that_is_not_the_users_lie_here(here: Path, address: str) -> None:
    fetched = find_model(Path(f"{address}/spoken.onnx#sha256={SUM}"))
    assert run_folder.home(fetched) == Path("spoken-results")
    assert run_folder.home(find_model(Path("letters"))) == Path("letters-results")
    own = here / "a.onnx"
    own.write_bytes(CONTENT)
    assert run_folder.home(own) == here

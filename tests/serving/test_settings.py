"""Options come from the command line, then the environment, then the file; what is unknown or wrong is named."""

import functools
from pathlib import Path
from typing import Any

import pytest

from ds2_jax import cli
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.serving.models import _lengths, named
from ds2_jax.serving.options import Access, Network
from ds2_jax.serving.settings import ModelSettings, read_models
from ds2_jax.system.errors import InputError

USUAL = ModelSettings(Path(), None, GREEDY)


def options(*words: str) -> dict[str, Any]:
    """Reads options as the command does."""
    command = cli.parse("serve", words)
    assert isinstance(command, functools.partial)
    return command.keywords


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text(
        """
        host = "0.0.0.0"
        port = 9000
        max-streams = 7
        max_seconds = 60
        allowed-host = ["a.example", "b.example"]
        num-best = 2

        [model.letters]
        run = "runs/a"
        beam-width = 32

        [model.words]
        run = "runs/b"
        engine = "onnx"
        hot-word = ["GO=1"]
        """
    )
    return path


def test_the_command_line_comes_first_then_the_environment_then_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS2_JAX_SERVE_NO_KEY", "true")
    monkeypatch.setenv("DS2_JAX_SERVE_MAX_STREAMS", "8")
    monkeypatch.setenv("DS2_JAX_SERVE_MAX_REQUESTS", "9")
    found = options("run", "--settings", str(file), "--max-requests", "10")
    limits = found["limits"]
    assert (limits.max_requests, limits.max_streams, limits.max_seconds) == (10, 8, 60.0)
    assert (found["network"].port, found["access"].host, found["access"].no_key) == (9000, "0.0.0.0", True)
    assert found["access"].allowed_host == ("a.example", "b.example")
    assert options("--settings", str(file), "--allowed-host", "c")["access"].allowed_host == ("c",)
    monkeypatch.setenv("DS2_JAX_SERVE_ALLOWED_HOST", "d 'e f'")
    monkeypatch.setenv("DS2_JAX_SERVE_SETTINGS", str(file))
    monkeypatch.setenv("DS2_JAX_SERVE_MODEL", "x=runs/x y=runs/y")
    found = options()
    assert (found["access"].allowed_host, found["model"]) == (("d", "e f"), ("x=runs/x", "y=runs/y"))
    assert found["settings"] == file
    with pytest.raises(InputError, match=r"^--host must be 127\.0\.0\.1 without keys, got 0\.0\.0\.0\."):
        options("--no-no-key")


def test_models_have_options_of_their_own(file: Path) -> None:
    usual = ModelSettings(Path(), None, DecodingOptions(num_best=2))
    tables = read_models(file, usual)
    models = named([Path("runs/first")], ["second=runs/b=c"], tables, usual)
    assert list(models) == ["first", "second", "letters", "words"]
    assert models["second"] == usual._replace(run=Path("runs/b=c"))
    assert models["letters"] == (Path("runs/a"), None, DecodingOptions(num_best=2, beam_width=32))
    assert models["words"] == (Path("runs/b"), "onnx", DecodingOptions(num_best=2, hot_word=("GO=1",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot must be a known setting, got 'prot'. Did you mean port?"),
        ('port = "1"', "port must be of type int, got '1'."),
        ("allowed-host = 1", "allowed-host must be a list of texts, got 1."),
        ("engine = 'torch'", "engine must be one of onnx, jax, got 'torch'."),
        ("port = ", " must be a TOML file, got: Invalid value"),
        ("[model.a]\nrum = 'x'", "model.a.rum must be a known setting, got 'rum'. Did you mean run?"),
        ("[model.a]\nengine = 'onnx'", "model.a.run must name a run, got None."),
        ("[model.a]\nrun = 'x'\nnum-best = 0", "model.a: --num-best must be at least 1, got 0."),
        ("model = 3", "model must be tables [model.NAME], got 3."),
        ("[model]\na = 'runs/a'", "model.a must be a table, got 'runs/a'. Write [model.NAME]"),
        ("api-key = 'secret'", "api-key must be a known setting, got 'api-key'. Did you mean api-key-file?"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)

    def read() -> None:
        options("--settings", str(path))
        read_models(path, USUAL)

    with pytest.raises(InputError) as raised:
        read()
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PROT", "1", "DS2_JAX_SERVE_PROT must be a known setting, got 'prot'. Did you mean DS2_JAX_SERVE_PORT?"),
        ("PORT", "tcp://1", "DS2_JAX_SERVE_PORT must be of type int, got 'tcp://1'."),
        ("NO_KEY", "perhaps", "DS2_JAX_SERVE_NO_KEY must be of type bool, got 'perhaps'."),
        ("MAX_SECONDS", "x", "DS2_JAX_SERVE_MAX_SECONDS must be of type float, got 'x'."),
        ("SETTINGS", "missing.toml", "--settings must be a file, got missing.toml: No such file or directory."),
    ],
)
def test_a_wrong_variable_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"DS2_JAX_SERVE_{variable}", value)
    with pytest.raises(InputError) as raised:
        options()
    assert str(raised.value).startswith(message)


def test_models_need_names_of_their_own() -> None:
    for runs, names, message in (
        ([], [], "RUN must name at least one model, got 0. "),
        ([], ["runs/a"], "--model must be NAME=RUN, got 'runs/a'."),
        ([Path("a/b")], ["b=c"], "RUN must have a name of its own, got 'b'. Name it otherwise: --model NAME=RUN."),
    ):
        with pytest.raises(InputError) as raised:
            named(runs, names, {}, USUAL)
        assert str(raised.value).startswith(message)


def test_the_network_is_checked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    for fields, message in (
        ({"port": 2**16}, "--port must be 0 to 65535, got 65536."),
        ({"certificate": tmp_path / "no"}, "--certificate must be a file, got "),
        ({"certificate_key": tmp_path / "key"}, "--certificate-key must be used with --certificate, got "),
        (
            {"root_path": "speech"},
            "--root-path must be /NAME or /NAME/NAME, of letters, digits and _ . ~ -, got 'speech'.",
        ),
        (
            {"root_path": "/speech/"},
            "--root-path must be /NAME or /NAME/NAME, of letters, digits and _ . ~ -, got '/speech/'.",
        ),
        ({"allow_origin": ("*",)}, "--allow-origin must be scheme://host[:port], got '*'."),
        ({"allow_origin": ("https://a/b",)}, "--allow-origin must be scheme://host[:port], got 'https://a/b'."),
    ):
        with pytest.raises(InputError) as raised:
            Network(**fields)
        assert str(raised.value).startswith(message)
    assert Network(root_path="/a/b-c", allow_origin=("https://a.example:8443",)).port == 8000


def test_another_host_needs_keys_or_an_explicit_no(tmp_path: Path) -> None:
    message = (
        r"^--host must be 127\.0\.0\.1 without keys, got 0\.0\.0\.0\. "
        r"Add --api-key-file FILE, or --no-key to let everybody in\.$"
    )
    with pytest.raises(InputError, match=message):
        Access("0.0.0.0")
    assert Access("0.0.0.0", no_key=True).keys() == ()
    path = tmp_path / "keys"
    with pytest.raises(InputError, match=r"^--api-key-file must be a file of keys, got No such file"):
        Access("0.0.0.0", path).keys()
    path.write_text("\n")
    with pytest.raises(InputError, match=r"^--api-key-file must hold at least one key, got 0"):
        Access("0.0.0.0", path).keys()
    path.write_text("one\n two \n")
    assert Access("0.0.0.0", path).keys() == ("one", "two")


def test_all_lengths_are_warmed() -> None:
    """Every length of a piece is padded to one that was run before."""
    from ds2_jax.recognition.piece_outputs import _padded_samples

    warmed = {int(seconds * 16_000) for seconds in _lengths()}
    assert {_padded_samples(number, 16_000) for number in range(1, 35 * 16_000, 997)} <= warmed

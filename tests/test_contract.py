"""The package, its recipes, its requirements and its README agree with each other."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.requirements import Requirement

from ds2_jax import cli
from ds2_jax.config import load_config
from tests.commands import parse_only

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, DEVELOPMENT = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"


def test_import_layers_hold() -> None:
    linter = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert linter.returncode == 0, linter.stdout + linter.stderr


@pytest.mark.parametrize(
    "imports",
    [
        [
            ("ds2_jax.cli", {"jax", "tensorflow", "librosa", "orbax"}),
            ("ds2_jax.evaluation.summary", {"jax", "tensorflow", "librosa", "orbax", "tensorboardX"}),
            (
                "ds2_jax.evaluation.report.command",
                {"tensorflow", "tensorflow_datasets", "librosa", "orbax", "matplotlib", "numba"},
            ),
            ("ds2_jax.model.network", {"tensorflow", "librosa", "orbax"}),
            ("ds2_jax.curation.check", {"tensorflow", "librosa", "orbax", "matplotlib"}),
            ("ds2_jax.curation.preview.utterances", {"tensorflow", "librosa", "orbax", "matplotlib"}),
            ("ds2_jax.bench.report", {"tensorflow", "librosa", "torch"}),
        ],
        [
            ("ds2_jax.recognition.transcribe", {"tensorflow", "tensorflow_datasets", "librosa"}),
            ("ds2_jax.curation.pack", {"tensorflow", "tensorflow_datasets", "apache_beam", "librosa"}),
            ("ds2_jax.training.train", {"tensorflow", "tensorflow_datasets", "librosa"}),
        ],
    ],
    ids=["light", "heavy"],
)
def test_imports_load_little_and_start_no_backend(imports: list[tuple[str, set[str]]]) -> None:
    """Each module is imported after those before it, which may load less."""
    script = "import importlib, sys\n"
    script += "for name in sys.argv[1:]:\n    importlib.import_module(name)\n    print(*sys.modules)\n"
    script += "from jax._src import xla_bridge\nprint(xla_bridge.backends_are_initialized())"
    words = [sys.executable, "-c", script, *(module for module, _ in imports)]
    *loaded, started = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for (module, absent), modules in zip(imports, loaded, strict=True):
        assert not absent & set(modules.split()), module
    assert started == "False"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_file_in_configs_loads(path: Path) -> None:
    load_config(path)


def pins(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]


def test_every_requirement_is_one_exact_version() -> None:
    for pin in [*pins(RUNTIME), *pins(DEVELOPMENT)]:
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin


def test_pins_satisfy_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [(RUNTIME, each) for each in project["project"]["dependencies"]]
    wanted += [(RUNTIME, each) for each in project["tool"]["uv"]["constraint-dependencies"]]
    wanted += [(DEVELOPMENT, each) for each in extras["dev"] + extras["beam"] + extras["quickstart"]]
    for path, text in wanted:
        requirement = Requirement(text)
        if requirement.name == project["project"]["name"]:  # one of the package's own extras
            continue
        (pin,) = (each for each in pins(path) if each.name.lower() == requirement.name.lower())
        assert requirement.specifier.contains(str(pin.specifier).removeprefix("==")), (text, path.name)


def test_the_pinned_jax_is_the_one_that_computes_right() -> None:
    assert {"jax==0.10.1", "jaxlib==0.10.1"} <= set(RUNTIME.read_text().splitlines())


def test_compiled_reductions_are_right_past_32768_rows() -> None:
    """jaxlib 0.10.2 on CPU gets every row past the 32768th wrong: jax issue 39103."""

    def squared_norms(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(rows)

    rows = jnp.asarray(np.random.default_rng(0).integers(-8, 8, (32_769, 3)), jnp.float32)  # exact in float32
    np.testing.assert_array_equal(squared_norms(rows), np.sum(np.asarray(rows) ** 2, axis=1))
    np.testing.assert_array_equal(jax.jit(squared_norms)(rows), squared_norms(rows))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(page: Path) -> str:
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_pages_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_only(monkeypatch)
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^(?:(?:\S+/)?python main\.py|ds2-jax)\b(.*)$", code_of(page), flags=re.MULTILINE)
    assert commands or page.name != "README.md"
    for command in commands:
        words = shlex.split(command, comments=True)
        code: str | int | None
        try:
            code = cli.main(words)
        except SystemExit as stop:  # raised by --help and by wrong options
            code = stop.code
        assert code == 0, command


def test_what_other_toolkits_options_are_called_here_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_only(monkeypatch)
    monkeypatch.chdir(ROOT)
    rows = re.findall(r"^\|.*\| (.*) \|$", (ROOT / "docs/coming-from.md").read_text(), flags=re.MULTILINE)
    cells = [shlex.split(cell) for row in rows for cell in re.findall(r"`((?:python main\.py|--\w)[^`]*)`", row)]
    assert len(cells) > 50
    of_training = (
        "--data.",
        "--model.",
        "--optim.",
        "--perturb.",
        "--epochs",
        "--patience",
        "--init-from",
        "--workdir",
    )
    for words in cells:
        before = ["--config", "librispeech"] if words[0].startswith(of_training) else ["transcribe", "RUN", "a.wav"]
        code: str | int | None
        try:
            code = cli.main(words[2:] if words[0] == "python" else [*before, *words])
        except SystemExit as stop:
            code = stop.code
        assert code == 0, words


def test_the_shapes_of_the_design_are_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/design.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    exec(code, {})  # noqa: S102 - our own
    printed = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed.pop("parameters") == "86,618,400"
    rows = {"features": "features", "conv_norm_0": "first convolution", "conv_norm_1": "second convolution"}
    rows |= {"rnn_0": "recurrent layers, each", "rnn_4": "recurrent layers, each", "logits": "head"}
    assert printed.pop("head_norm") == printed["rnn_4"]
    assert printed.keys() == rows.keys()
    for name, row in rows.items():
        [line] = re.findall(rf"^\| {row} \|.*$", text, flags=re.MULTILINE)
        assert f"`{printed[name]}`" in line, (row, printed[name])


def test_the_readmes_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    used = re.findall(r"^make ([a-z-]+)", code_of(ROOT / "README.md"), flags=re.MULTILINE)
    assert used
    assert set(used) <= set(targets)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_the_links_of_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#]+)", (ROOT / "README.md").read_text()))
    pages = {page.name for page in PAGES[1:]} - {"index.md"}  # the first page of the site
    assert linked == pages | {"notebook/one-batch.ipynb"}

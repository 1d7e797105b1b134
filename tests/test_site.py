"""`make docs` makes a site without warnings, which asks nothing of other hosts and finds what it is asked for."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbclient
import pytest

import ds2_jax
import ds2_jax.model
from ds2_jax import cli
from ds2_jax.config import Config
from tests.browser import Browser, find_chromium
from tests.conftest import NO_CHROMIUM, ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a copy of the pages, because references are written beside them."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("_build", "reference"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    words = [
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        str(folder / "docs"),
        str(folder / "built"),
    ]
    subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}, check=True
    )
    return folder / "built"


NOTEBOOK = ROOT / "docs/notebook/one-batch.md"


def code_cells(notebook: Path) -> list[str]:
    return [cell.source for cell in jupytext.read(notebook).cells if cell.cell_type == "code"]


def test_the_notebook_has_the_outputs_of_its_text() -> None:
    shown = jupytext.read(NOTEBOOK.with_suffix(".ipynb"))
    assert code_cells(NOTEBOOK) == code_cells(NOTEBOOK.with_suffix(".ipynb"))
    cells = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 7
    assert {output.output_type for output in outputs} == {"stream", "display_data"}  # no errors
    assert not re.search(r'"[^"]*(?:/tmp|/home|/work|/root)/', NOTEBOOK.with_suffix(".ipynb").read_text())


@pytest.mark.slow
def test_the_notebook_runs(an4_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS2_JAX_AN4", str(an4_archive))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = jupytext.read(NOTEBOOK)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": tmp_path}}).execute()
    written = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "FinalText    ONE FIVE TWO THREE TWO" in written
    assert "step  80  loss    0." in written


def words_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_every_page_is_made_and_listed(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}
    index = (site / "index.html").read_text()
    listed = set(re.findall(r'href="([\w/-]+)\.html"', index))
    assert (pages - {"index"}) | {"notebook/one-batch"} <= listed
    assert {f"reference/{name}" for name in ("settings", "commands", "contributing", "changelog")} <= listed


def test_references_hold_every_setting_command_and_public_name(site: Path) -> None:
    settings = words_of(site / "reference/settings.html")
    for section in dataclasses.fields(Config):
        if isinstance(section.type, type) and dataclasses.is_dataclass(section.type):
            for field in dataclasses.fields(section.type):
                assert f"--{section.name}.{field.name.replace('_', '-')}" in settings
    commands = words_of(site / "reference/commands.html")
    for name in cli.COMMANDS:
        assert re.search(rf"usage: \S+( \S+)* {name} \[-h\]", commands), name
    api = (site / "api.html").read_text()
    for module in (ds2_jax, ds2_jax.model):
        for name in set(module.__all__) - {"__version__"}:
            assert f'id="{module.__name__}.{name}"' in api, name


def test_pages_need_no_other_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', page.read_text())
        assert found == [], page


def test_search_finds_a_page(site: Path) -> None:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(NO_CHROMIUM)
    with Browser(chromium) as browser:
        browser.open(f"file://{site}/search.html?q=overfits")
        found = "[...document.querySelectorAll('#search-results li a')].map((each) => each.textContent)"
        wait = f"while (!{found}.length) await new Promise((go) => setTimeout(go, 50))"
        assert "Training" in browser.evaluate(f"(async () => {{ {wait}; return {found} }})()")
        assert all(request.startswith("file:") for request in browser.requests)

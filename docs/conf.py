"""Builds the site from the pages of this folder: `make docs`. The references are made from the code."""

import ast
import contextlib
import dataclasses
import inspect
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ds2_jax import cli, config
from ds2_jax.system.program import VERSION

HERE = Path(__file__).parent
os.environ["COLUMNS"] = "100"  # of the help texts

project, version, release = "ds2_jax", VERSION, VERSION
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "notebook/*.md"]  # the notebook with its outputs is shown instead
nb_execution_mode = "off"  # `make notebook` runs it
html_theme, html_title = "furo", f"ds2_jax {VERSION}"
html_copy_source = html_show_copyright = html_show_sphinx = False
default_role = "code"  # `words` in docstrings
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
REFERENCE = HERE / "reference"
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def make_references(_: Sphinx) -> None:
    """Writes the pages of `reference/`: settings, commands, and the pages that lie beside this folder."""
    REFERENCE.mkdir(exist_ok=True)
    (REFERENCE / "settings.md").write_text("\n".join(settings()), encoding="utf-8")
    (REFERENCE / "commands.md").write_text("\n".join(commands()), encoding="utf-8")
    for source, page in PAGES.items():
        text = (HERE.parent / source).read_text(encoding="utf-8").replace("](docs/", "](../")
        (REFERENCE / page).write_text(text, encoding="utf-8")


def commands() -> Iterator[str]:
    """Makes the page of commands: the help of each."""
    yield "# Commands\n\nThe help of every command, as `--help` prints it.\n"
    for name in cli.COMMANDS:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([*name.split(), "--help"])
        yield f"## {name}\n\n````text\n{text.getvalue().strip()}\n````\n"


def settings() -> Iterator[str]:
    """Makes the page of settings: a table for each section of `Config`, with names, defaults and what they mean."""
    yield "# Settings\n\nEvery setting of a recipe. On the command line, `--section.name VALUE` changes one.\n"
    sections = [("", config.Config)]
    sections += [(f"{each.name}.", each.type) for each in dataclasses.fields(config.Config) if _is_section(each.type)]
    for prefix, kind in sections:
        about = inspect.getdoc(kind) or ""
        yield f"## {kind.__name__}\n\n{about}\n\n| setting | default | meaning |\n|---|---|---|"
        texts = attribute_docs(kind)
        for field in dataclasses.fields(kind):
            if not _is_section(field.type):
                option = f"--{prefix}{field.name.replace('_', '-')}"
                yield f"| `{option}` | `{_shown(field.default)}` | {_cell(texts[field.name])} |"
        yield ""


def attribute_docs(kind: type) -> dict[str, str]:
    """Reads the strings below the fields of a class."""
    [body] = [node for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef)]
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _shown(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text.replace("|", "\\|") or '""'


def _cell(text: str) -> str:
    names = "|".join(field.name for field in dataclasses.fields(config.Config) if _is_section(field.type))
    return re.sub(rf"(?<![\w`])((?:{names})\.[a-z_]+)", r"`\1`", text).replace("|", "\\|")


def mend_links(_: Sphinx, name: str, source: list[str]) -> None:
    """Lets links to files beside this folder lead to their pages, or stand as the names of files."""

    def mended(match: re.Match[str]) -> str:
        text, path = match[1], match[2]
        return f"[{text}](reference/{PAGES[path]})" if path in PAGES else f"`{path}`"

    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./([^)#]+)\)", mended, source[0]) if "/" not in name else source[0]


def setup(app: Sphinx) -> None:
    """Connects the functions above."""
    app.connect("builder-inited", make_references)
    app.connect("source-read", mend_links)

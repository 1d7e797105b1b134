"""Writes the report of an evaluation into a folder: index.html for a person, report.json for programs."""

import json
from collections.abc import Sequence
from pathlib import Path

from ds2_jax.evaluation.report.contents import Contents, as_json
from ds2_jax.evaluation.report.page import page
from ds2_jax.evaluation.report.shown import ShownUtterance
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import make_writable, write_text

NUM_UTTERANCES = 20
"""The number of worst utterances on the page. At 16 kHz, one of 3 s takes 0.2 MB and one of 30 s takes 1.6 MB, so the
page has at most 33 MB."""


def make_folder(folder: Path) -> None:
    """Makes the folder of a report. Call it before the evaluation, so that a failure does not waste its work.

    Raises:
        InputError: there is a file at this path, or the folder cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--report must be a folder, got {folder}, which is a file. Give another --report.")
    make_writable(folder)


def write_report(folder: Path, contents: Contents, utterances: Sequence[ShownUtterance]) -> Path:
    """Writes index.html and report.json and replaces older ones.

    Args:
        folder: a folder from `make_folder`.
        contents: the contents of the report.
        utterances: the worst utterances, the worst first.

    Returns:
        The path of index.html, which is written last.

    Raises:
        InputError: a file cannot be written.
    """
    numbers = as_json(contents, [each.result for each in utterances])
    write_text(folder / "report.json", json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    path = folder / "index.html"
    write_text(path, page(contents, utterances))
    return path

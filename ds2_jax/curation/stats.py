"""Runs the command `data stats`: prints hours, speakers and words of manifests as a table."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import read_utterances
from ds2_jax.system.errors import InputError

Manifests = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST [MANIFEST ...]")]
QUANTILES = {"least": 0.0, "1 %": 0.01, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "most": 1.0}
NONE = "-"


def stats(manifests: Manifests) -> int:
    """Prints hours, speakers, words and durations of manifests, with a column for each, without decoding audio.

    Words are separated by white space and counted as written, with case and punctuation.

    Args:
        manifests: manifests in any format that training reads, and tfds:NAME#SPLIT.

    Returns:
        The exit code 0.

    Raises:
        InputError: see `read_manifests`.
    """
    utterances = read_manifests(manifests)
    columns = {
        name: describe(rows) for name, rows in zip(column_names(list(utterances)), utterances.values(), strict=True)
    }
    if len(columns) > 1:
        columns["all"] = describe([utterance for rows in utterances.values() for utterance in rows])
    print(table(columns))
    return 0


def read_manifests(paths: Sequence[Path]) -> dict[Path, list[Utterance]]:
    """Reads the utterances of each manifest.

    Raises:
        InputError: no manifest is named, one is named twice, or one cannot be read.
    """
    if not paths:
        raise InputError("MANIFEST must name at least one file, got none. Add it.")
    require_distinct(paths)
    return {path: read_utterances(path) for path in paths}


def require_distinct(paths: Sequence[Path]) -> None:
    """Raises InputError if a file is named twice."""
    for path, count in Counter(map(os.path.realpath, paths)).items():
        if count > 1:
            raise InputError(f"Each manifest must be named once, got {path} {count} times. Name it once.")


def column_names(paths: Sequence[Path]) -> list[str]:
    """Gives the names of files, or their whole paths if two have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def describe(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Formats counts, hours, words and quantiles of durations as a column of the table."""
    seconds = sum(utterance.duration for utterance in utterances)
    texts = [unicodedata.normalize("NFC", utterance.transcript) for utterance in utterances]
    words = [word for text in texts for word in text.split()]
    speakers = {utterance.speaker for utterance in utterances}
    unnamed = sum(not utterance.speaker for utterance in utterances)
    return {
        "utterances": f"{len(utterances):,}",
        "hours": f"{seconds / 3600:,.2f}",
        "speakers": f"{len(speakers - {''}):,}",
        "  utterances without one": f"{unnamed:,}",
        "words": f"{len(words):,}",
        "  a minute": f"{len(words) / seconds * 60:.0f}" if seconds else NONE,
        "  different": f"{len(set(words)):,}",
        "characters": f"{sum(map(len, texts)):,}",
        "  different ones": f"{len(set().union(*texts)):,}",
        "duration, s": "",
        **quantiles(utterance.duration for utterance in utterances),
    }


def quantiles(values: Iterable[float]) -> dict[str, str]:
    """Formats the `QUANTILES` of the finite values."""
    known = np.array([value for value in values if np.isfinite(value)])
    return {f"  {name}": f"{np.quantile(known, at):.2f}" if known.size else NONE for name, at in QUANTILES.items()}


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Formats columns that have the same rows as a table."""
    rows = list(next(iter(columns.values())))
    first = max(map(len, rows))
    widths = {name: max(len(name), *map(len, column.values())) for name, column in columns.items()}
    lines = ["  ".join(["".ljust(first), *(name.rjust(width) for name, width in widths.items())])]
    for row in rows:
        lines.append("  ".join([row.ljust(first), *(columns[name][row].rjust(widths[name]) for name in columns)]))
    return "\n".join(line.rstrip() for line in lines)

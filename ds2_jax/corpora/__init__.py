"""Prepares corpora: each module makes the manifests of the splits, and unpacks or synthesises the audio if needed.

Every module has a function `prepare`. Its parameters are the options of the command, and its docstring is their help.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ds2_jax.config import DataConfig
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.program import command

CORPORA = {
    "an4": "an hour of spelled and spoken words, 16 kHz (Carnegie Mellon University)",
    "librispeech": "1,000 hours of read audiobooks, 16 kHz (openslr.org/12)",
    "common-voice": "sentences read by volunteers in more than a hundred languages (Mozilla)",
    "tedlium": "TED talks in English, releases 2 and 3 (University of Le Mans)",
    "voxforge": "English read by volunteers, 16 kHz (voxforge.org)",
    "folder": "recordings of your own with their transcripts, in text files or a table",
    "synthetic": "the quick start's digits and commands, spoken by espeak-ng",
    "spelling": "AN4 and synthesised voices in silence, noise and music, for the model spelling",
}
"""The corpora that `prepare` makes, each with a description."""


class Splits(NamedTuple):
    """The manifests of a run; None for a split that it does not have."""

    train: Path | None
    dev: Path | None
    test: Path | None


def preparer(corpus: str) -> Callable[..., Path]:
    """Returns the function that prepares a corpus. Its arguments are `root` and options; its result is the folder."""
    function: Callable[..., Path] = importlib.import_module(f"ds2_jax.corpora.{corpus.replace('-', '_')}").prepare
    return function


def split_manifests(data: DataConfig, *, build: bool) -> Splits:
    """Returns the manifests of `data.corpus`, or the manifests that the settings name; `build` prepares the corpus.

    Raises:
        InputError: the corpus cannot be prepared, `data.archive` is set for `synthetic`, or a named manifest belongs to
            a corpus that is not prepared.
    """
    if data.corpus is None:
        manifests = Splits(data.train, data.dev, data.test)
        for name, path in manifests._asdict().items():
            _check_is_prepared(f"data.{name}", path)
        return manifests
    if data.corpus == "synthetic" and data.archive is not None:
        raise InputError(
            f"data.archive must be None for synthetic, which is built here, got {data.archive}. Remove it."
        )
    folder = data.root / data.corpus
    if build:
        options = {} if data.corpus == "synthetic" else {"archive": data.archive}
        folder = preparer(data.corpus)(root=data.root, **options)
    return Splits(*(folder / f"{split}.jsonl" for split in Splits._fields))


def unseen_dev(data: DataConfig) -> Path | None:
    """Returns the manifest of a run's dev split; None if the run has no dev split or has trained on it."""
    return None if data.train_on_dev else split_manifests(data, build=False).dev


def _check_is_prepared(field: str, path: Path | None) -> None:
    """Raises InputError, with what to do, if the manifest is "none", or of a corpus whose folder does not exist."""
    none = str(path).lower() in ("none", "null") and path is not None
    require(not none, field, "be a manifest or None", str(path), "To leave it out, write None with a capital N.")
    corpus = next((part for part in path.parts[-3:-1] if part in CORPORA), None) if path else None
    if path is None or corpus is None or path.parent.is_dir():
        return
    root = Path(*path.parts[: path.parts.index(corpus)])
    raise InputError(
        f"{field} must be a manifest, got {path}, which does not exist. Make it: "
        f"{command('prepare', corpus, '--root', root)} (--help lists its options)."
    )

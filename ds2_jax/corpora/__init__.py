"""One module for each corpus: the published archive -> manifests train.jsonl, dev.jsonl and test.jsonl."""

import importlib
from pathlib import Path
from typing import NamedTuple

from ds2_jax.config import DataConfig
from ds2_jax.errors import InputError


class Splits(NamedTuple):
    """The manifests of a run; None where it has none."""

    train: Path | None
    dev: Path | None
    test: Path | None


def prepare(corpus: str, root: Path, archive: Path | None = None) -> Path:
    """Prepares a corpus unless it is there: ROOT/CORPUS/{train,dev,test}.jsonl and the audio.

    Args:
        corpus: "an4" or "synthetic".
        root: folder of all corpora.
        archive: copy of the published archive; None downloads it. The synthetic corpus has none.

    Returns:
        ROOT/CORPUS.

    Raises:
        InputError: the corpus cannot be had; the message says what to do.
    """
    if corpus == "synthetic" and archive is not None:
        raise InputError(f"--archive must be left out for synthetic, which is built here, got {archive}. Remove it.")
    module = importlib.import_module(f"ds2_jax.corpora.{corpus}")
    folder: Path = module.prepare(root) if corpus == "synthetic" else module.prepare(root, archive)
    return folder


def split_manifests(data: DataConfig, *, build: bool) -> Splits:
    """The manifests of `data.corpus`, or without one those named in the settings; `build` prepares the corpus."""
    if data.corpus is None:
        return Splits(data.train, data.dev, data.test)
    folder = prepare(data.corpus, data.root, data.archive) if build else data.root / data.corpus
    return Splits(*(folder / f"{split}.jsonl" for split in Splits._fields))

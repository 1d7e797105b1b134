"""Stores KenLM's scores of the sentences of ngram_inputs.py, in ngram.npz.

Run it from the root of the repository in an environment with KenLM (`pip install kenlm` compiles it) and NumPy:
`python -m tests.golden.make_ngram_golden`. The file holds the versions that made it.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import kenlm
import numpy as np

from tests.golden import ngram_inputs


def main() -> None:
    """Writes the file: the scores of each model's sentences, and for each word log10 and whether it is unknown."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("kenlm", "numpy"))
    stored: dict[str, Any] = {"versions": np.array(versions)}
    for name, arpa in ngram_inputs.models().items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.arpa")
            path.write_text(arpa, encoding="utf-8")
            model = kenlm.Model(str(path))
        sentences = ngram_inputs.sentences(name)
        words = [word for sentence in sentences for word in model.full_scores(sentence)]
        stored[f"{name}/totals"] = np.array([model.score(sentence) for sentence in sentences], np.float32)
        stored[f"{name}/bare_totals"] = np.array(
            [model.score(each, bos=False, eos=False) for each in sentences], np.float32
        )
        stored[f"{name}/log10"] = np.array([log10 for log10, _, _ in words], np.float32)
        stored[f"{name}/unknown"] = np.array([unknown for _, _, unknown in words])
    np.savez_compressed(Path(__file__).with_name("ngram.npz"), **stored)


if __name__ == "__main__":
    main()

"""Which weights a run uses, without reading them."""

import hashlib
import json
from pathlib import Path

from ds2_jax.config import Config
from ds2_jax.runs import run_folder
from ds2_jax.runs.damage import read_meta
from ds2_jax.system.files import file_digest


def weights_of(run: Path, config: Config) -> tuple[list[int], str]:
    """Identifies the weights that recognition uses: their steps, the best first, and a SHA-256.

    The digest is made of the sums in the checkpoints, so no array is read. It is "" if an older version of this package
    saved the checkpoints without sums. An exported model has no steps, and the digest is that of its file.

    Raises:
        InputError: the metadata of a checkpoint cannot be read.
    """
    if run_folder.is_exported(run):
        files = [run] if run.is_file() else [run / run_folder.WEIGHTS, run / run_folder.WHOLE]
        return [], file_digest(next(file for file in files if file.is_file()))
    steps = run_folder.best_steps(run, config.checkpoint.average)
    prefixes = ("average.",) if config.optim.ema_decay else ("params.", "batch_stats.")
    sums = [read_meta(run / run_folder.CHECKPOINTS / str(step)).get("sha256") for step in steps]
    if not all(sums):
        return steps, ""
    weights = [{name: each for name, each in found.items() if name.startswith(prefixes)} for found in sums if found]
    return steps, hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()

"""Runs the command `import`: makes a model of this package of a checkpoint of deepspeech.pytorch."""

import json
import logging
from pathlib import Path

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.engines import pytorch, safetensors
from ds2_jax.exchange.deepspeech_pytorch import Edges, Imported, translate
from ds2_jax.exchange.export import write_folder
from ds2_jax.runs import run_folder
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import file_digest, make_writable

logger = logging.getLogger(__package__)


def import_model(file: Path, out: Path, edges: Edges | None) -> int:
    """Writes a folder that every command takes as RUN.

    Args:
        file: the checkpoint.
        out: the folder to write.
        edges: see `translate`.

    Returns:
        The exit code 0.

    Raises:
        InputError: see `pytorch.read` and `translate`; or the folder has files or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out must be an empty or new folder, got {out}. Give another, or empty it.")
    imported = translate(pytorch.read(file), file, edges)
    make_writable(out)
    config = imported.config
    origin = {
        "file": file.name,
        "sha256": file_digest(file),
        "made_by": f"deepspeech.pytorch {imported.version}",
    }
    texts = {
        run_folder.CONFIG: config_lib.to_json(config) + "\n",
        run_folder.ORIGIN: json.dumps(origin, indent=2) + "\n",
    }
    written = write_folder(texts, config, safetensors.as_tree(imported.arrays), out, int8=False)
    print(describe(imported))
    for each in written:
        print(f"{each}  {each.stat().st_size / 1e6:,.1f} MB")
    if not imported.edges_known:
        other = "zeros" if config.features.edges == "reflected" else "reflected"
        logger.warning(
            f"{file} does not say whether its features reflect the edges of recordings; {config.features.edges} is "
            f"usual for its version. If words at the very start or end are wrong, try --edges {other}."
        )
    return 0


def describe(imported: Imported) -> str:
    """Describes a model in one line."""
    config: Config = imported.config
    model, features = config.model, config.features
    kind = "both directions" if model.bidirectional else f"forward, look-ahead of {model.lookahead_context} frames"
    return (
        f"deepspeech.pytorch {imported.version}: {model.num_layers} x {model.hidden_size} {model.rnn_type}, {kind}, "
        f"{features.sample_rate} Hz, {len(config.data.alphabet)} characters"
    )

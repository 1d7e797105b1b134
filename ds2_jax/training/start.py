"""Begins a training with the weights of another model."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ds2_jax.config import Config
from ds2_jax.data.skipped import Skipped
from ds2_jax.data.splits import Split
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.model.update import TrainState
from ds2_jax.parallel.mesh import replicate
from ds2_jax.parallel.processes import is_primary
from ds2_jax.runs import run_folder
from ds2_jax.runs.model import read_config, read_variables
from ds2_jax.runs.named import find_model
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.runs.weights import weights_of
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.files import write_text
from ds2_jax.system.program import VERSION
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import CHARACTERS
from ds2_jax.training.progress import dev_text

logger = logging.getLogger(__package__)

FREE = {"model.dropout", "model.dtype"}
"""Settings of features and model that may differ, because they change neither the shapes nor what weights mean."""
UNUSED = {"model.lookahead_context"}
"""Settings that a model in both directions does not use."""


def check(config: Config, workdir: Path) -> None:
    """Checks that a training in `workdir` can begin with the weights of `config.init_from`.

    Raises:
        InputError: there is no model, it has no weights, it lies in `workdir`, or its features or sizes are others. The
            message lists these.
    """
    assert config.init_from is not None
    model = find_model(config.init_from)
    source = read_config(model)
    _check_has_weights(model)
    if model.resolve() == workdir.resolve():  # the training would replace it
        raise InputError(f"--init-from must be no model in --workdir, got {workdir} for both. Give another --workdir.")
    free = FREE | (UNUSED if config.model.bidirectional and source.model.bidirectional else set())
    differing = [
        f"  --{section}.{field.name.replace('_', '-')} must be {there!r}, got {here!r}"
        for section in ("features", "model")
        for field in dataclasses.fields(getattr(config, section))
        if (here := getattr(getattr(config, section), field.name))
        != (there := getattr(getattr(source, section), field.name))
        and f"{section}.{field.name}" not in free
    ]
    if differing:
        raise InputError(
            f"--init-from {config.init_from} must have the features and sizes of this training, got others:\n"
            + "\n".join(differing)
            + "\nTake over its settings, or begin without it."
        )


def _check_has_weights(source: Path) -> None:
    if run_folder.is_exported(source):
        place = source if source.is_file() else source / run_folder.WEIGHTS
        found = place.suffix == Path(run_folder.WEIGHTS).suffix and place.is_file()
    else:
        found = run_folder.best_step(source) is not None
    if not found:
        rule = f"be a run with a checkpoint, a folder with {run_folder.WEIGHTS}, or a .safetensors file"
        raise InputError(f"--init-from must {rule}, got {source}. Name another model.")


def with_weights(state: TrainState, config: Config, mesh: Mesh, run: Path) -> TrainState:
    """Replaces the drawn weights by those of another model, and notes in the run where they come from.

    Args:
        state: the state before the first update.
        config: settings of the run, checked by `check`.
        mesh: the devices of the state.
        run: folder of the run.

    Raises:
        InputError: the weights cannot be read.
    """
    assert config.init_from is not None
    model = find_model(config.init_from)
    source = read_config(model)
    variables = jax.device_get(read_variables(model, source, mesh))
    ours, theirs = Alphabet.of(config.data).units, Alphabet.of(source.data).units
    head, kept = _head(jax.device_get(state.params["head"]), variables["params"]["head"], ours, theirs)
    variables = replicate({**variables, "params": {**variables["params"], "head": head}}, mesh)
    new = [unit for unit in ours if unit not in kept]
    kind, listed = ("characters", "".join(new)) if config.data.units == CHARACTERS else ("units", new)
    added = f", and drawn anew for {shorten(repr(listed))}" if new else ""
    logger.info(f"weights of {config.init_from}; the head's are copied for {len(kept)} of {len(ours)} {kind}{added}")
    if is_primary():
        _note(config.init_from, weights_of(model, source), run)
    # The step donates the whole state, so params and average must not share arrays.
    average = jax.tree.map(jnp.copy, variables) if state.average else state.average
    return dataclasses.replace(state, params=variables["params"], batch_stats=variables["batch_stats"], average=average)


def tell_rates(model: TrainedModel, dev: Split, on_problem: Skipped | None) -> None:
    """Logs the error rates of the dev split before the first update."""
    rates = evaluate_split(model, dev, make_decoder(model.config), title="dev", on_problem=on_problem)
    logger.info(f"before the first step{dev_text(rates) or ': there is no dev split to measure on'}")


def _head(drawn: Any, other: Any, ours: Sequence[str], theirs: Sequence[str]) -> tuple[Any, list[str]]:
    """Takes the columns of the blank and of common units from another head [H, V]; also returns these units."""
    head, places = drawn.copy(), {unit: place for place, unit in enumerate(theirs, start=1)}
    head[:, 0] = other[:, 0]
    for place, unit in enumerate(ours, start=1):
        if unit in places:
            head[:, place] = other[:, places[unit]]
    return head, [unit for unit in ours if unit in places]


def _note(source: Path, weights: tuple[list[int], str], run: Path) -> None:
    steps, digest = weights
    origin: Mapping[str, object] = {
        "init_from": str(source),
        "steps": steps,
        "weights": digest,
        "made_by": f"ds2_jax {VERSION}",
    }
    write_text(run / run_folder.ORIGIN, json.dumps(origin, indent=2) + "\n")

"""Runs the command `export`: writes a trained model for other programs, and compares what it wrote with the run."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ds2_jax import config as config_lib
from ds2_jax.config import Config
from ds2_jax.config.live import STEP_SECONDS, can_stream, delays, describe
from ds2_jax.data.splits import found_manifests
from ds2_jax.engines import onnx_graph, safetensors
from ds2_jax.exchange import card, layouts, proof
from ds2_jax.exchange.target import Target
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import fitted_text, read_tuned
from ds2_jax.runs.model import Model, jax_engine, open_model, read_config, read_variables
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from ds2_jax.system.files import make_writable, write_bytes, write_text
from ds2_jax.text.alphabet import Alphabet

logger = logging.getLogger(__package__)


def export(
    run: Path,
    out: Path,
    *,
    int8: bool,
    float16: bool = False,
    stablehlo: bool,
    target: Target | None,
    manifest: Path | None,
) -> int:
    """Writes a model, and proves that it gives what the run gives.

    Args:
        run: the folder of a training run, or what an earlier export wrote.
        out: the folder to write.
        int8: whether to quantise the recurrent layers.
        float16: whether to round the weights to 16 bits, and to store them so in the .safetensors file.
        stablehlo: whether to write StableHLO instead of ONNX.
        target: the program that shall read the folder; None for this package.
        manifest: what to compare on; see `proof.compare`.

    Returns:
        The exit code 0.

    Raises:
        InputError: the run cannot be read, the folder has files or cannot be written, the model has no such form, or
            the written model disagrees with the run.
    """
    config = read_config(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out must be an empty or new folder, got {out}. Give another, or empty it.")
    if int8 and config.model.rnn_type != "lstm":
        raise InputError(
            f"--int8 must have LSTM layers, got a model of {config.model.rnn_type} layers, which ONNX Runtime does not "
            "quantise. Leave it out."
        )
    variables = jax.device_get(read_variables(run, config))
    kept = jax.tree.map(safetensors.rounded, variables) if float16 else variables
    make_writable(out)
    manifest = manifest or found_manifests(config.data).get("test")
    # Only a folder that was compared is complete, so what an error or a signal leaves is no model.
    with interrupts.temporary_folder(out) as folder:
        written, files = _write(run, config, kept, folder, int8, float16, stablehlo, target, manifest)
        reference = Model(config, jax_engine(config, variables))
        found = proof.compare(reference, written, manifest, same_waveform=target != "sherpa-onnx")
        for line in found.lines:
            print(line)
        fault = found.fault(exact=not (int8 or float16))
        if float16 and not int8:  # what was written must be exactly the rounded model
            fault = fault or proof.compare(Model(config, jax_engine(config, kept)), written, None).fault(exact=True)
        if not (stablehlo or target) and not _same(read_variables(folder / run_folder.WEIGHTS, config), kept):
            fault = fault or f"other weights in {run_folder.WEIGHTS}"
        if fault:
            raise InputError(f"The written model must give what {run} gives, got {fault}. Please report this.")
        kind, name = "stablehlo" if stablehlo else target, out.resolve().name
        write_text(
            folder / "README.md",
            card.text(run, config, variables, found, kind=kind, int8=int8, float16=float16, name=name),
        )
        places = [out / file.relative_to(folder) for file in [*files, folder / "README.md"]]
        for path in folder.iterdir():
            path.replace(out / path.name)
    for place in places:
        print(f"{place}  {place.stat().st_size / 1e6:,.1f} MB")
    return 0


def _write(
    run: Path,
    config: Config,
    variables: Any,
    folder: Path,
    int8: bool,
    float16: bool,
    stablehlo: bool,
    target: Target | None,
    manifest: Path | None,
) -> tuple[Model, list[Path]]:
    """Writes a model; returns it as its reader has it, and its files. The arguments are those of `export`."""
    public = without_places(config)
    if stablehlo:
        from ds2_jax.exchange import stablehlo as stablehlo_lib

        files = stablehlo_lib.write(public, variables, folder)
        return Model(config, stablehlo_lib.StableHloEngine(folder, config), has_step=False), files
    if target:
        level = proof.level(config, manifest)
        files = layouts.write(target, public, variables, folder, int8=int8, level=level)
        return Model(config, layouts.LayoutEngine(target, folder, config), has_step=False), files
    files = _write_own(run, public, variables, folder, int8=int8, float16=float16)
    return open_model(folder, "onnx"), files


def _same(found: Any, expected: Any) -> bool:
    """Whether two trees hold the same arrays, bit for bit."""
    one, other = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (found, expected))
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def client_facts(config: Config, frame: int) -> dict[str, str]:
    """Lists what a program that knows nothing of this package needs beside the graph; docs/export.md describes it.

    Args:
        config: settings of the run.
        frame: samples of an output frame.
    """
    return {
        "sample_rate": str(config.features.sample_rate),
        "frame_samples": str(frame),
        "labels": json.dumps(["", *Alphabet.of(config.data).units]),
    }


def without_places(config: Config) -> Config:
    """Removes the paths of this machine from settings; a model that is published must not tell them."""
    none = dict.fromkeys(("archive", "train", "dev", "test", "corpus"))
    data = dataclasses.replace(config.data, root=Path("datasets"), **none)  # type: ignore[arg-type]
    perturb = dataclasses.replace(config.perturb, responses=None, noise=None)
    return dataclasses.replace(config, data=data, perturb=perturb, init_from=None)


def _write_own(
    run: Path, config: Config, variables: Any, out: Path, *, int8: bool, float16: bool = False
) -> list[Path]:
    """Writes a folder with what is known of a run."""
    texts = {run_folder.CONFIG: config_lib.to_json(config) + "\n"}
    if calibration := fitted_text(run, run_folder.CALIBRATION):
        texts[run_folder.CALIBRATION] = calibration
    if tuned := read_tuned(run):  # a digest identifies the language model, so its place is not needed
        rows = {digest: {**dataclasses.asdict(each), "lm": Path(each.lm).name} for digest, each in tuned.items()}
        texts[run_folder.TUNED] = json.dumps(rows, indent=2) + "\n"
    return write_folder(texts, config, variables, out, int8=int8, float16=float16)


def write_folder(
    texts: Mapping[str, str], config: Config, variables: Any, out: Path, *, int8: bool = False, float16: bool = False
) -> list[Path]:
    """Writes the folder that this package reads, and returns its files.

    Args:
        texts: contents of the text files by name, one of them the settings. Other files have them as metadata.
        config: the settings.
        variables: params and batch_stats, as NumPy arrays.
        out: the folder.
        int8: whether to quantise the recurrent layers.
        float16: whether the weights are rounded to 16 bits.
    """
    metadata = {"config" if name == run_folder.CONFIG else name: each for name, each in texts.items()}
    frame = config.model.time_reduction * config.features.hop_length  # samples
    graphs, facts = {run_folder.WHOLE: onnx_graph.whole(config, variables)}, client_facts(config, frame)
    steps: dict[str, str] = {}
    if can_stream(config):
        frames = max(1, round(STEP_SECONDS * config.features.sample_rate / frame))
        graphs[run_folder.STREAMING] = onnx_graph.streaming(config, variables, frames)
        steps = {"step_samples": str(frames * frame), "delay_frames": str(delays(config, frames).output)}
        logger.info(describe(config))
    for name, text in texts.items():
        write_text(out / name, text)
    write_bytes(out / run_folder.WEIGHTS, safetensors.to_bytes(variables, metadata, float16=float16))
    for name, model in graphs.items():
        if int8:
            model = onnx_graph.quantised(model)
        onnx_graph.add_metadata(model, metadata | facts | (steps if name == run_folder.STREAMING else {}))
        write_bytes(out / name, model.SerializeToString())
    return [out / name for name in (*texts, run_folder.WEIGHTS, *graphs)]

"""Declares the command `export`. Slow modules are imported only after the options have been checked."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.exchange.target import Target
from ds2_jax.runs.model import read_config
from ds2_jax.runs.named import find_model
from ds2_jax.system.checks import require
from ds2_jax.system.files import check_is_readable

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def export(
    run: Run,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    int8: bool = False,
    float16: bool = False,
    format: Literal["onnx", "stablehlo"] = "onnx",  # noqa: A002 - the option's name
    for_: Annotated[Target | None, tyro.conf.arg(name="for", help_behavior_hint="(default: this package)")] = None,
    manifest: Path | None = None,
) -> int:
    """Write a trained model into a folder that other programs can use, and prove that it gives the same text.

    The folder holds model.safetensors and config.json, from which training can go on; model.onnx, from waveforms to
    log-probabilities; for a model that can stream, streaming.onnx, a step with its state; the calibration; and
    README.md, a model card to complete. Every command takes such a folder as RUN, and a .onnx or .safetensors file
    alone.

    Args:
        run: Folder of a training run, or a folder or .safetensors file that export wrote.
        out: Folder to write. It must be empty or not exist.
        int8: Store the recurrent layers' weights in 8 bits: a third of the size. LSTM only.
        float16: Round the weights to 16 bits. model.safetensors stores them so, in half the size.
        format: onnx, or stablehlo: model.stablehlo for JAX on any platform, and model.mlir for other compilers.
        for_: Write the folder that this program reads.
        manifest: Manifest or tfds:NAME#SPLIT on which the written model is compared with the run; by default the run's
            test split. Without either, the comparison takes speech-like signals.
    """
    require(format == "onnx" or not (int8 or for_), "--format", "be onnx with --int8 or --for", format)
    require((format == "onnx" and not for_) or not float16, "--float16", "be used without --for and --format", float16)
    run = find_model(run)
    read_config(run)
    from ds2_jax.exchange.export import export as export_model
    from ds2_jax.system.compilation import enable_cache

    enable_cache()
    stablehlo = format == "stablehlo"
    return export_model(run, out, int8=int8, float16=float16, stablehlo=stablehlo, target=for_, manifest=manifest)


def import_(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    edges: Literal["zeros", "reflected"] | None = None,
) -> int:
    """Make a model of a checkpoint of deepspeech.pytorch. Every command takes the result as RUN.

    PyTorch is not needed, and nothing that the file contains is run.

    Args:
        file: Checkpoint of V3 (.ckpt), or package of v2.0 or V2.1 (.pth). v1 cannot be read: its model is another.
        out: Folder to write. It must be empty or not exist.
        edges: What the first and last frames of a recording hear outside it. Up to V2.1 librosa reflected the
            recording, and since 2022 it hears silence. The default is what the version of the file suggests.
    """
    check_is_readable(file, "FILE")
    from ds2_jax.exchange.import_model import import_model

    return import_model(file, out, edges)

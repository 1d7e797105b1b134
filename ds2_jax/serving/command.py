"""Declares the command `serve`. Slow modules are imported only after the options have been checked."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.serving.options import DEFAULTS, LOCAL_ONLY, Access, Limits
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

Runs = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
]
ENGINE = tyro.conf.arg(help_behavior_hint="(default: jax if JAX can use an accelerator, otherwise onnx)")
PACKAGES = ("starlette", "uvicorn", "python_multipart", "websockets", "prometheus_client")


def serve(
    runs: Runs,
    port: int = 8000,
    engine: Annotated[EngineName | None, ENGINE] = None,
    access: Annotated[Access, tyro.conf.arg(name="")] = LOCAL_ONLY,
    limits: Annotated[Limits, tyro.conf.arg(name="")] = DEFAULTS,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Serve models to clients of OpenAI's API (recordings and Realtime), of vosk-server and of deepspeech.pytorch.

    Args:
        runs: Folders of training runs, or folders or files that export wrote. The last part of a path is the model's
            name; the first model is the default.
        port: Port to listen on; 0 for a free one.
        engine: What runs the models. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
        access: Who may connect.
        limits: Bounds of what clients may ask for.
        decoding: How to decode.
    """
    require(0 <= port < 2**16, "--port", f"be 0 to {2**16 - 1}", port)
    try:
        from ds2_jax.serving.server import serve as serve_models
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise InputError(
            f"serve must have the package {error.name}, got an environment without it. "
            "Install it: pip install 'ds2_jax[serve]', or the pins of requirements-dev.txt."
        ) from error
    _prepare(engine)
    return serve_models(runs, port, decoding, engine, access, limits)


def _prepare(engine: EngineName | None) -> None:
    from ds2_jax.runs.model import default_engine

    if (engine or default_engine()) == "jax":
        from ds2_jax.system.compilation import enable_cache  # this import loads JAX

        enable_cache()

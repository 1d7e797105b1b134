"""Declares the command `serve`. Slow modules are imported only after the options have been checked."""

from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.serving.options import DEFAULTS, LOCAL_ONLY, LOG, NETWORK, Access, Limits, Log, Network
from ds2_jax.serving.settings import ModelSettings, read_models
from ds2_jax.system.errors import InputError

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
Named = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=RUN")]
ENGINE = tyro.conf.arg(help_behavior_hint="(default: jax if JAX can use an accelerator, otherwise onnx)")
PACKAGES = ("starlette", "uvicorn", "python_multipart", "websockets", "prometheus_client")


def serve(
    runs: Runs = (),
    model: Named = (),
    settings: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    engine: Annotated[EngineName | None, ENGINE] = None,
    network: Annotated[Network, tyro.conf.arg(name="")] = NETWORK,
    access: Annotated[Access, tyro.conf.arg(name="")] = LOCAL_ONLY,
    limits: Annotated[Limits, tyro.conf.arg(name="")] = DEFAULTS,
    log: Annotated[Log, tyro.conf.arg(name="")] = LOG,
    decoding: Annotated[DecodingOptions, tyro.conf.arg(name="")] = GREEDY,
) -> int:
    """Serve models to clients of OpenAI's API (recordings and Realtime), of vosk-server and of deepspeech.pytorch.

    Options can also come from a file (--settings) and from environment variables (DS2_JAX_SERVE_MAX_STREAMS for
    --max-streams). The command line comes first, then the environment, then the file.

    Args:
        runs: Folders of training runs, folders or files that export wrote, or spelling, the model in this package. The
            last part of a path is the model's name; the first model is the default.
        model: A model and its name. You can repeat this option.
        settings: A TOML file with options by their names here (max-streams = 50), and with a table [model.NAME] for
            each further model: its run, engine and decoding options.
        engine: What runs the models. onnx: ONNX Runtime, the fastest on a CPU. jax: JAX.
        network: How clients reach the server.
        access: Who may connect.
        limits: Bounds of what clients may ask for.
        log: What is logged of requests.
        decoding: How to decode, for models whose table does not say otherwise.
    """
    usual = ModelSettings(Path(), engine, decoding)
    tables = read_models(settings, usual)
    try:
        from ds2_jax.serving.models import named
        from ds2_jax.serving.server import serve as serve_models
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise InputError(
            f"serve must have the package {error.name}, got an environment without it. "
            "Install it in a clone of ds2_jax: pip install '.[serve]', or pip install -r requirements-serve.txt where "
            "requirements-recognise.txt is installed."
        ) from error
    models = named(runs, model, tables, usual)
    _prepare([each.engine for each in models.values()])
    return serve_models(models, network, access, limits, log)


def _prepare(engines: list[EngineName | None]) -> None:
    from ds2_jax.runs.model import default_engine

    if "jax" in (engine or default_engine() for engine in engines):
        from ds2_jax.system.compilation import enable_cache  # this import loads JAX

        enable_cache()

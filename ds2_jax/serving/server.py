"""Runs the server until a signal stops it."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import uvicorn
from starlette.types import ASGIApp

from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.app import make_app
from ds2_jax.serving.options import Access, Limits
from ds2_jax.serving.service import Service
from ds2_jax.serving.vosk import VoskPort
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError
from ds2_jax.system.interrupts import deferred, requested, temporary_folder

logger = logging.getLogger(__package__)

MESSAGE_BYTES = 2**22
"""Largest message of a WebSocket."""
POLL_SECONDS = 0.1


class Server(uvicorn.Server):
    """A server that leaves signals to `ds2_jax.system.interrupts`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Does nothing."""
        yield


def serve(
    runs: Sequence[Path],
    port: int,
    decoding: DecodingOptions,
    engine: EngineName | None,
    access: Access,
    limits: Limits,
) -> int:
    """Serves models until a signal comes, then finishes what has begun.

    Args:
        runs: trained models; the last part of a path is the model's name.
        port: the port to listen on.
        decoding: how to decode.
        engine: what runs the models.
        access: who may connect.
        limits: bounds of what clients may ask for.

    Raises:
        InputError: a model cannot be opened, two have one name, or the port cannot be had.
        Stopped: a signal came.
    """
    keys = access.keys()
    started = time.perf_counter()
    models = open_models(runs, decoding, engine)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        stack.enter_context(deferred(lambda: "", task="finishing the requests that have begun"))
        sockets = [stack.enter_context(_listen("--port", access.host, port))]
        service = Service(models, folder, limits)
        stack.callback(service.close)
        app: ASGIApp = make_app(service, keys, (access.host, *access.allowed_host))
        if access.vosk_port is not None:
            sockets.append(stack.enter_context(_listen("--vosk-port", access.host, access.vosk_port)))
            app = VoskPort(app, sockets[-1].getsockname()[1])
        asyncio.run(_run(Server(server_config(app, access.host, port)), sockets, service, started))
    return 0


def _listen(option: str, host: str, port: int) -> socket.socket:
    """Opens a port.

    Raises:
        InputError: it cannot be had.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"{option} must be free on {host}, got {port}. Choose another.") from error


def server_config(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    """Makes the settings of the HTTP server."""
    return uvicorn.Config(
        app,
        host,
        port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=None,  # a busy server must not close a healthy stream; --idle-seconds finds dead ones
        timeout_graceful_shutdown=5,
    )


def open_models(runs: Sequence[Path], decoding: DecodingOptions, engine: EngineName | None) -> dict[str, Recogniser]:
    """Opens models and runs each once, so that the first request does not wait.

    Raises:
        InputError: a model cannot be opened, none is named, or two have one name.
    """
    require(bool(runs), "RUN", "name at least one model", len(runs), "Add the folder of a run.")
    models: dict[str, Recogniser] = {}
    for run in runs:
        name = run.resolve().name
        require(name not in models, "RUN", "have a name of its own", name, "Copy or link it under another name.")
        recogniser = Recogniser(run, decoding, engine)
        rate = recogniser.config.features.sample_rate
        recogniser.transcribe(np.random.default_rng(0).uniform(-0.1, 0.1, rate).astype(np.float32), rate)
        models[name] = recogniser
    return models


async def _run(server: Server, sockets: list[socket.socket], service: Service, started: float) -> None:
    serving = asyncio.create_task(server.serve(sockets))
    while not (serving.done() or server.started):
        await asyncio.sleep(0.01)
    if server.started:
        host, port = sockets[0].getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        names = ", ".join(service.models)
        vosk = f", and vosk's clients on port {sockets[1].getsockname()[1]}" if len(sockets) > 1 else ""
        seconds = time.perf_counter() - started
        logger.info(f"ready after {seconds:.1f} s: {address}/v1 serves {names}{vosk}; the page is {address}/")
    while not serving.done() and not requested():
        await asyncio.sleep(POLL_SECONDS)
    await drain(service)
    server.should_exit = True
    await serving


async def drain(service: Service) -> None:
    """Refuses new requests, and waits for those that have begun, so long as the limits allow."""
    service.draining = True
    deadline = time.monotonic() + service.limits.drain_seconds
    while (service.num_requests or service.num_streams) and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)

"""Runs the server until a signal stops it."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Generator, Mapping

import uvicorn
from starlette.types import ASGIApp

from ds2_jax.serving.app import make_app
from ds2_jax.serving.connections import bounded_connections
from ds2_jax.serving.models import open_models
from ds2_jax.serving.observe import log_as_json
from ds2_jax.serving.options import DEFAULTS, Access, Limits, Log, Network
from ds2_jax.serving.service import Service
from ds2_jax.serving.settings import ModelSettings
from ds2_jax.serving.vosk import VoskPort
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


def serve(settings: Mapping[str, ModelSettings], network: Network, access: Access, limits: Limits, log: Log) -> int:
    """Serves models until a signal comes, then finishes what has begun.

    Args:
        settings: trained models by name.
        network: how clients reach the server.
        access: who may connect.
        limits: bounds of what clients may ask for.
        log: what is logged of requests.

    Raises:
        InputError: a model cannot be opened, the certificate cannot be used, or the port cannot be had.
        Stopped: a signal came.
    """
    keys = access.keys()
    if log.log_format == "json":
        log_as_json()
    started = time.perf_counter()
    models = open_models(settings, limits.max_streams + limits.max_requests)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        stack.enter_context(deferred(lambda: "", task="finishing the requests that have begun"))
        sockets = [stack.enter_context(_listen("--port", access.host, network.port))]
        service = Service(models, folder, limits)
        stack.callback(service.close)
        app = make_app(service, keys, (access.host, *access.allowed_host), network.allow_origin, log)
        if access.vosk_port is not None:
            sockets.append(stack.enter_context(_listen("--vosk-port", access.host, access.vosk_port)))
            app = VoskPort(app, sockets[-1].getsockname()[1])
        asyncio.run(_run(Server(server_config(app, access.host, network, limits)), sockets, service, started))
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


def server_config(app: ASGIApp, host: str, network: Network, limits: Limits = DEFAULTS) -> uvicorn.Config:
    """Makes the settings of the HTTP server.

    Raises:
        InputError: the certificate cannot be used.
    """
    config = uvicorn.Config(
        app,
        host,
        network.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=bounded_connections(limits.idle_seconds),
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=None,  # a busy server must not close a healthy stream; --idle-seconds finds dead ones
        timeout_graceful_shutdown=5,
        root_path=network.root_path,
        forwarded_allow_ips=network.forwarded_allow_ips,
        ssl_certfile=network.certificate,
        ssl_keyfile=network.certificate_key,
    )
    try:
        config.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        advice = "Give a certificate and its private key, without a password, in PEM format."
        raise InputError(f"--certificate must be usable, got: {error}. {advice}") from error
    return config


async def _run(server: Server, sockets: list[socket.socket], service: Service, started: float) -> None:
    serving = asyncio.create_task(server.serve(sockets))
    while not (serving.done() or server.started):
        await asyncio.sleep(0.01)
    if server.started:
        host, port = sockets[0].getsockname()[:2]
        scheme = "https" if server.config.is_ssl else "http"
        address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        names = ", ".join(service.models)
        vosk = f", and vosk's clients on port {sockets[1].getsockname()[1]}" if len(sockets) > 1 else ""
        seconds = time.perf_counter() - started
        logger.info(f"ready after {seconds:.1f} s: {address}/v1 serves {names}{vosk}; the page is {address}/")
    if service.limits.hot_word_boost:
        # It may take half a minute, which a request without hot words need not wait for.
        threading.Thread(target=service.prepare_hot_words, name="hot words", daemon=True).start()
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

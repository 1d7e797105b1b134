"""The server as an ASGI application."""

import logging
import time
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ds2_jax.serving import deepspeech, openai, page_files
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.guard import Guard
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.realtime import realtime
from ds2_jax.serving.service import GoneError, Service
from ds2_jax.serving.vosk import vosk

logger = logging.getLogger(__package__)

CLIENT_GONE = 499
"""The status that is counted for a client that went away, as nginx does."""


def make_app(service: Service, keys: Iterable[str] = (), hosts: Iterable[str] = ()) -> ASGIApp:
    """Makes the application.

    Args:
        service: the models.
        keys: API keys; with none, everybody may come in.
        hosts: further names of this server.
    """
    routes = [
        Route("/v1/audio/transcriptions", openai.transcriptions, methods=["POST"]),
        Route("/v1/models", openai.models),
        Route("/v1/models/{name}", openai.model),
        Route("/transcribe", deepspeech.transcribe, methods=["POST"]),
        Route("/health", _health),
        Route("/ready", _ready),
        Route("/metrics", _metrics),
        WebSocketRoute("/v1/realtime", realtime),
        WebSocketRoute("/vosk", vosk),
        *page_files.routes(),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            RequestError: _refused,
            HTTPException: _not_found,
            GoneError: _gone,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )
    app.state.service = service
    guarded = Guard(app, keys, hosts, lambda: service.draining)
    return Counted(guarded, service.metrics, [route.path for route in routes if isinstance(route, Route)])


class Counted:
    """Counts requests and how long they take."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Iterable[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.monotonic()
        try:
            await self._app(scope, receive, counted)
        finally:
            route = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)


async def _health(request: Request) -> Response:  # noqa: ARG001 - Starlette gives it
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    draining = request.app.state.service.draining
    return JSONResponse({"status": "draining" if draining else "ready"}, 503 if draining else 200)


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestError)
    return error.response()


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    message = f"The request must fit one of the server's URLs, got: {error.detail}. Correct the URL or the method."
    return RequestError(error.status_code, message).response()


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=CLIENT_GONE)


async def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return RequestError(500, "The server must answer, got an error of its own. Its log has the reason.").response()

"""The server as an ASGI application."""

import logging
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from ds2_jax.serving import deepspeech, openai, page_files
from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.guard import Guard
from ds2_jax.serving.observe import CLIENT_GONE, Observed
from ds2_jax.serving.openapi import document
from ds2_jax.serving.options import LOG, Log
from ds2_jax.serving.realtime import realtime
from ds2_jax.serving.service import GoneError, Service
from ds2_jax.serving.vosk import vosk

logger = logging.getLogger(__package__)


def make_app(
    service: Service,
    keys: Iterable[str] = (),
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    log: Log = LOG,
) -> ASGIApp:
    """Makes the application.

    Args:
        service: the models.
        keys: API keys; with none, everybody may come in.
        hosts: further names of this server.
        origins: origins of other pages that may use it.
        log: what is logged.
    """
    routes = [
        Route("/v1/audio/transcriptions", openai.transcriptions, methods=["POST"]),
        Route("/v1/models", openai.models),
        Route("/v1/models/{name}", openai.model),
        Route("/transcribe", deepspeech.transcribe, methods=["POST"]),
        Route("/health", _health),
        Route("/ready", _ready),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
        WebSocketRoute("/v1/realtime", realtime),
        WebSocketRoute("/vosk", vosk),
        *page_files.routes(),
    ]
    paths = [route.path for route in routes if isinstance(route, Route | WebSocketRoute)]
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
    guarded = Guard(app, keys, hosts, origins, lambda: service.draining)
    return Observed(guarded, service.metrics, paths, log)


async def _health(request: Request) -> Response:  # noqa: ARG001 - Starlette gives it
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    draining = request.app.state.service.draining
    return JSONResponse({"status": "draining" if draining else "ready"}, 503 if draining else 200)


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _openapi(request: Request) -> Response:
    return JSONResponse(document(request.scope.get("root_path", "")))


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestError)
    return error.response()


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    message = f"The request must fit one of the server's URLs, got: {error.detail}. Correct the URL or the method."
    response = RequestError(error.status_code, message).response()
    response.headers.update(error.headers or {})  # such as Allow
    return response


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=CLIENT_GONE)


async def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return RequestError(500, "The server must answer, got an error of its own. Its log has the reason.").response()

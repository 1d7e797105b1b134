"""Counts and logs every request, and gives each an id, which the response names too."""

import asyncio
import contextvars
import dataclasses
import json
import logging
import sys
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.options import Log
from ds2_jax.system.logs import PACKAGE

logger = logging.getLogger(__package__)

CLIENT_GONE = 499
"""The status that is counted for a client that went away, as nginx does."""
WATCHED = ("/health", "/ready", "/metrics")
"""Paths that are asked for all the time: they are counted, but logged only if they fail."""
HEADS = ("http.response.start", "websocket.http.response.start", "websocket.accept")


@dataclasses.dataclass
class Record:
    """What is known of a request.

    Attributes:
        id: its name in the log and in the header x-request-id.
        status: status of the response.
        audio_seconds: seconds of audio that were recognised.
        model: name of the model.
        with_text: whether to keep what was recognised.
        text: what was recognised, a line for each segment or file.
        file: the name that the client gives to its file.
    """

    id: str = dataclasses.field(default_factory=lambda: f"req_{uuid.uuid4().hex}")
    status: int = CLIENT_GONE
    audio_seconds: float = 0.0
    model: str | None = None
    with_text: bool = False
    text: str = ""
    file: str | None = None

    def heard(self, text: str) -> None:
        """Keeps a text if it is to be logged."""
        if self.with_text:
            self.text += f"{text}\n"


_record: contextvars.ContextVar[Record | None] = contextvars.ContextVar("record", default=None)


def record() -> Record:
    """Returns the record of the request that is being answered; outside of one, a record that nobody reads."""
    return _record.get() or Record()


def route_path(scope: Scope) -> str:
    """Returns the path of a request as the routes have it, without that of the proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Observed:
    """Counts and logs the requests of an application.

    Args:
        app: the application.
        metrics: what counts them.
        paths: paths of its routes. Other paths are one to the metrics and the log.
        log: what is logged.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Iterable[str], log: Log) -> None:
        self._app, self._metrics, self._paths, self._log = app, metrics, frozenset(paths), log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        own = Record(with_text=self._log.log_texts)
        _record.set(own)

        async def observed(message: Message) -> None:
            if message["type"] in HEADS:
                own.status = message.get("status", 101)
                MutableHeaders(scope=message)["x-request-id"] = own.id
            await send(message)

        started = time.monotonic()
        try:
            await self._app(scope, receive, observed)
        except asyncio.CancelledError:
            # Uvicorn cancels what is not finished when the server ends, and would log and answer it as its own error.
            if scope["type"] == "http" and own.status == CLIENT_GONE:
                message = "The server must run to the end of the request, got one that stops. Send it again."
                await RequestError(503, message).response()(scope, receive, observed)
        finally:
            self._note(scope, own, time.monotonic() - started)

    def _note(self, scope: Scope, own: Record, seconds: float) -> None:
        path = route_path(scope)
        route = path if path in self._paths else "other"
        self._metrics.requests.labels(route, str(own.status)).inc()
        if scope["type"] == "http":  # a live stream takes as long as its client likes
            self._metrics.seconds.labels(route).observe(seconds)
        if route in WATCHED and own.status == 200:
            return
        client = scope.get("client")
        fields: dict[str, Any] = {
            "id": own.id,
            "client": client[0] if client else None,
            "route": route,
            "status": own.status,
            "seconds": round(seconds, 3),
            "audio_seconds": round(own.audio_seconds, 3),
            "model": own.model,
        }
        if self._log.log_texts:
            fields |= {"text": own.text, "file": own.file}
        logger.info(_sentence(fields), extra={"fields": fields})


def _sentence(fields: dict[str, Any]) -> str:
    """Writes a line for people."""
    line = f"{fields['id']} {fields['client']} {fields['route']} {fields['status']} {fields['seconds']:.3f} s"
    if fields["audio_seconds"]:
        line += f", {fields['audio_seconds']:.1f} s of audio, model {fields['model']}"
    if fields.get("text"):
        line += f", file {fields['file']!r}, text {fields['text']!r}"
    return line


class JsonLines(logging.Formatter):
    """Writes each record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time_ = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time_, "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        line |= fields or {"message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Makes the package and uvicorn log one JSON object a line, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (PACKAGE, "uvicorn"):
        logging.getLogger(name).handlers = [handler]
    logging.getLogger("uvicorn").propagate = False

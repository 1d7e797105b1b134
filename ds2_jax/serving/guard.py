"""Lets requests in: the host that they name, where they come from, and their key."""

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from ds2_jax.serving.errors import RequestError
from ds2_jax.serving.observe import route_path

PROBES = ("/health", "/ready")
OPEN = (*PROBES, "/")
"""Paths that need no key."""
OPEN_FOLDER = "/page/"
"""The files of the page at / need none either."""
WHILE_DRAINING = (*PROBES, "/metrics")
"""Paths that are answered while the server drains."""
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "*, authorization",  # browsers do not count it to *
    "access-control-max-age": "600",
}
"""What pages of named origins may send."""
KEY_PROTOCOL = "openai-insecure-api-key."
"""What a browser's subprotocol with a key begins with: its WebSockets cannot send other headers. Source: OpenAI's
Realtime API."""


class Guard:
    """Refuses requests before an application sees them, and adds headers to every response.

    Args:
        app: the application.
        keys: API keys; with none, everybody may come in.
        hosts: names of this server besides addresses, localhost and the name of the machine.
        origins: other origins whose pages may use the server.
        draining: whether new requests are refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Iterable[str] = (),
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        draining: Callable[[], bool] = bool,
    ) -> None:
        self._app, self._draining = app, draining
        self._origins = frozenset(origins)
        self._digests = [_digest(key) for key in keys]
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                own = MutableHeaders(scope=message)
                own["x-content-type-options"] = "nosniff"
                own["cache-control"] = "no-store"
                if self._origins:
                    own.add_vary_header("origin")
                if origin in self._origins:
                    own["access-control-allow-origin"] = origin
                    own["access-control-expose-headers"] = "x-request-id, retry-after"
            await send(message)

        try:
            self._check_place(headers)
            if scope["type"] == "http" and origin in self._origins and _is_preflight(scope, headers):
                await Response(status_code=204, headers=PREFLIGHT)(scope, receive, guarded)
                return
            self._check_turn(headers, route_path(scope), scope.get("subprotocols", ()))
        except RequestError as error:
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, guarded).send_denial_response(error.response())
            else:
                await error.response()(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check_place(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            advice = "Use the server's address, or start it with --allowed-host NAME."
            raise RequestError(403, f"Host must be a name of this server, got {host[:100]!r}. {advice}", code="host")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _is_same(origin, host):
            advice = "Other pages may use it if it is started with --allow-origin ORIGIN."
            raise RequestError(403, f"Origin must be this server, got another page's. {advice}", code="origin")

    def _check_turn(self, headers: Headers, path: str, subprotocols: Iterable[str]) -> None:
        keys = [headers.get("authorization", "")]
        keys += [f"Bearer {each.removeprefix(KEY_PROTOCOL)}" for each in subprotocols if each.startswith(KEY_PROTOCOL)]
        if self._digests and not _is_open(path) and not any(map(self._has_key, keys)):
            advice = "Send one of the server's keys: Authorization: Bearer KEY."
            raise RequestError(401, f"The API key must be known, got another or none. {advice}", code="invalid_api_key")
        if self._draining() and path not in WHILE_DRAINING:
            raise RequestError(503, "The server must be running to be used, got one that stops. Try again later.")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server. A page of another server can name only its own name here."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_key(self, authorization: str) -> bool:
        kind, _, key = authorization.partition(" ")
        own = _digest(key.strip())
        # All keys are compared, each in constant time, so that the time tells nothing about a key.
        same = sum(hmac.compare_digest(own, digest) for digest in self._digests)
        return kind.lower() == "bearer" and same > 0


def _is_same(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks what a page may send. It sends no key with that."""
    return bool(scope["method"] == "OPTIONS" and "access-control-request-method" in headers)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_FOLDER)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def accept(socket: WebSocket, protocol: str) -> None:
    """Accepts a WebSocket, with the subprotocol if it is offered: browsers drop a connection if none is chosen."""
    await socket.accept(protocol if protocol in socket.scope["subprotocols"] else None)

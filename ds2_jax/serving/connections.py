"""HTTP connections that end if their client sends no request."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_connections(idle_seconds: float) -> type[H11Protocol]:
    """Makes the class of a server's connections.

    Uvicorn waits for ever for a client that connects and sends nothing, or sends a header byte by byte.

    Args:
        idle_seconds: time that a client has for a whole header.
    """

    class BoundedConnection(H11Protocol):
        """A connection that ends if no request is complete, or goes on, within `idle_seconds`."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """See `asyncio.Protocol`."""
            super().connection_made(transport)
            self._seen: Any = None
            self.loop.call_later(idle_seconds, self._check)

        def _check(self) -> None:
            if self not in self.connections or self.transport.is_closing():  # it has ended, or is a WebSocket
                return
            if self.cycle is self._seen and (self.cycle is None or self.cycle.response_complete):
                self.transport.close()
                return
            self._seen = self.cycle
            self.loop.call_later(idle_seconds, self._check)

    return BoundedConnection

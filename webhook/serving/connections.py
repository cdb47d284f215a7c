"""Connections of the admission port: none that stalls is kept for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from webhook.serving.clients import REFUSAL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from webhook.serving.clients import PeerCertificate

CLOSE_NOTIFY_SECONDS = 1
"""How long a closed connection waits for the peer's close_notify; uvloop would wait 30."""

BEGAN = "began"
"""In a request's ``state``: when its first byte came, in seconds of ``time.perf_counter``."""


class ConnectionState(ServerState):
    """The connections of a server, with a deadline for each from which something is owed.

    Args:
        stall_seconds: For how long a peer may owe a whole request.
        most: How many connections there may be after their handshake.
        refusal: Takes the certificate that the peer has shown, if any, and returns the line that
            is its answer to every request; None for a peer that is answered.
    """

    def __init__(
        self, stall_seconds: float, most: int, refusal: Callable[[PeerCertificate], str | None]
    ) -> None:
        super().__init__()
        self.refusal = refusal
        self.stall_seconds = stall_seconds
        self.most = most
        # Used for its order: the one that has been idle longest comes first.
        self.idle: dict[ReviewProtocol, None] = {}
        # Seconds on the loop's clock.
        self.receiving: dict[ReviewProtocol, float] = {}

    def sweep(self, now: float) -> None:
        """End the connections whose deadline has passed.

        Args:
            now: The present time on the loop's clock, in seconds.
        """
        for connection in [one for one, end in self.receiving.items() if end <= now]:
            # A close would wait for the peer again.
            connection.transport.abort()

    def make_room(self) -> None:
        """End a connection if there are too many: the longest idle, else the longest awaited.

        One whose request is complete is never ended.
        """
        if len(self.connections) <= self.most:
            return
        connection = next(iter(self.idle or self.receiving), None)
        if connection is not None:
            self.forget(connection)
            # It is lost a moment later; until then it must not count.
            self.connections.discard(connection)
            connection.transport.abort()

    def forget(self, connection: ReviewProtocol) -> None:
        """Take a connection from both lists."""
        self.idle.pop(connection, None)
        self.receiving.pop(connection, None)


class ReviewProtocol(HttpToolsProtocol):
    """A connection that ends soon after the server closed it, whatever the peer does.

    An idle client of the API server's kind keeps its connection for 90 seconds and need not
    answer the close_notify of TLS; without this, such connections would hold a stop.

    A peer has ``ConnectionState.stall_seconds`` for its first request from the end of the TLS
    handshake, and for each later one from its first byte; between them it may be silent for as
    long as the server keeps connections alive.
    """

    server_state: ConnectionState

    def connection_made(  # type: ignore[override]  # as in the base class
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        refusal = self.server_state.refusal(transport.get_extra_info("peercert"))
        if refusal is not None:
            # It reaches the application with each request of this connection.
            self.app_state = {**self.app_state, REFUSAL: refusal}
        self._expect_request()
        self.server_state.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self.server_state.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; any byte is taken for the first of a request, even one the parser skips."""
        self._expect_request()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request, maybe in the data that ended the one before."""
        self._expect_request()
        super().on_message_begin()
        # Its timeout runs from here, also while it waits behind another on its connection.
        self.scope["state"][BEGAN] = time.perf_counter()

    def on_message_complete(self) -> None:
        """Take the request as received."""
        self.server_state.receiving.pop(self, None)
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, idle for too long."""
        super().timeout_keep_alive_handler()
        self._abort_if_closing()

    def shutdown(self) -> None:
        """Close the connection if it is idle, else after its response."""
        super().shutdown()
        self._abort_if_closing()

    def on_response_complete(self) -> None:
        """Go on with the next request, if the connection is kept."""
        super().on_response_complete()
        # The base class has set its timer where no further request is at hand.
        if self.timeout_keep_alive_task is not None and self not in self.server_state.receiving:
            self.server_state.idle[self] = None
        self._abort_if_closing()

    def _expect_request(self) -> None:
        deadline = self.loop.time() + self.server_state.stall_seconds
        self.server_state.receiving.setdefault(self, deadline)
        self.server_state.idle.pop(self, None)

    def _abort_if_closing(self) -> None:
        if self.transport.is_closing():
            self.loop.call_later(CLOSE_NOTIFY_SECONDS, self.transport.abort)

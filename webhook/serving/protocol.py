"""HTTP on one connection of the admission port: uvicorn's protocol, made hard to hold up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from webhook.serving.clients import REFUSAL
from webhook.serving.connection import Connection, Ending, Stage
from webhook.serving.connections import Connections

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

BEGAN = "began"
"""In a request's ``state``: when its first byte came, in seconds of ``time.perf_counter``."""

MOST_HEADERS = 100
"""Header lines of a request, and of the trailer of its body; the API server sends seven."""

LARGEST_HEAD = 64 * 1024
"""Bytes after which a head that is still not complete is refused. The parser has no limit."""

MOST_PIPELINED = 16
"""Requests that may wait on one connection behind the one being answered. No client of a webhook
sends any, and uvicorn would take in as many as fit the buffers, some thousands at a time."""


class _OneWrite:
    """Writes a response's head together with the beginning of its body.

    uvicorn writes them apart: two records of TLS and two calls of the system, about a fifth of
    what a small review costs in all (bench/server.py).

    Args:
        transport: Where it goes.
        cycle: uvicorn's, of the request that is answered.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write on, or hold the head until the body comes, which it does at once."""
        if not self._cycle.response_started:
            # "100 Continue".
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def is_closing(self) -> bool:
        """Tell whether nothing more can be written."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection once all is written."""
        self._transport.close()


class _TooMuch(Exception):
    """A request with too many headers, or one request too many; the parser passes it on."""


class ReviewProtocol(HttpToolsProtocol):
    """A connection that says what it is waiting for, so that one that stalls can be ended.

    Args:
        config: uvicorn's, with the application.
        connections: Where this connection is counted.
        app_state: uvicorn's; empty.
        connection: What is known of this connection since it was accepted.
    """

    server_state: Connections

    def __init__(
        self,
        config: Config,
        connections: Connections,
        app_state: dict[str, Any],
        connection: Connection,
    ) -> None:
        super().__init__(config, connections, app_state)
        self._connection = connection
        # Requests that came in whole and are not answered yet.
        self._unanswered = 0
        # Whether a request has begun and is not complete, and whether its head is not.
        self._partial = False
        self._in_head = False
        self._head_size = 0

    def connection_made(  # type: ignore[override]  # as in the base class
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for the first request."""
        self._connection.transport = transport
        super().connection_made(transport)
        refusal = self.server_state.refusal(transport.get_extra_info("peercert"))
        if refusal is not None:
            # It reaches the application with each request of this connection.
            self.app_state = {**self.app_state, REFUSAL: refusal}
        self.server_state.move(self._connection, Stage.FIRST_REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self.server_state.lost(self._connection)
        # The base class leaves the timer running where the connection was broken off; it would
        # keep all of this in memory.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; any byte is taken for the first of a request, even one the parser skips."""
        if self._connection.stage is Stage.IDLE:
            self.server_state.heard(self._connection)
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > LARGEST_HEAD:
                self.send_400_response("The head of the request is too large.")
        if self._connection.stage is Stage.IDLE:
            self._move(Stage.REQUEST)
        if self._partial:
            self.server_state.hold(self._connection, len(data))
        elif self._connection.unfinished:
            self.server_state.release(self._connection)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or too much of one, and close."""
        if self._unanswered or self.transport.is_closing():
            # It would be taken for the answer to an earlier request.
            self.server_state.end(self._connection, Ending.REFUSED)
            return
        self._connection.ending = Ending.REFUSED
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Begin a request, maybe in the data that ended the one before."""
        self._partial = self._in_head = True
        self._head_size = 0
        super().on_message_begin()
        # Its timeout runs from here, also while it waits behind another on its connection.
        self.scope["state"][BEGAN] = time.perf_counter()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a line of the trailer."""
        if len(self.headers) == MOST_HEADERS:
            raise _TooMuch
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request be answered, once those before it are."""
        if len(self.pipeline) == MOST_PIPELINED:
            raise _TooMuch
        self._in_head = False
        super().on_headers_complete()
        # A response to HEAD has no body to wait for.
        if self.scope["method"] != "HEAD":
            # The cycle asks nothing else of it.
            self.cycle.transport = cast("asyncio.Transport", _OneWrite(self.transport, self.cycle))
        if self.server_state.stopping:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Take the request as received."""
        self._partial = False
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._unanswered += 1
            self._move(Stage.ANSWER)
        elif not self.transport.is_closing():
            # It was refused for its head; the timer set then has been taken back since.
            self._move(Stage.IDLE)
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Go on with the next request, if the connection is kept."""
        # Only the latest request can be answered before it is complete.
        early = self.cycle.response_complete and self.cycle.more_body
        if not early:
            self._unanswered -= 1
        self.server_state.sent(self._connection)
        super().on_response_complete()
        if not self._partial:
            self._move(Stage.ANSWER if self._unanswered else Stage.IDLE)
        elif not self._unanswered and not early:
            self._move(Stage.REQUEST)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, idle for too long."""
        self._connection.ending = Ending.IDLE
        super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close the connection if it is idle, else after its response."""
        self._connection.ending = Ending.STOPPING
        super().shutdown()

    def _move(self, stage: Stage) -> None:
        self.server_state.move(self._connection, stage)

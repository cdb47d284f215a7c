"""The worker process: uvicorn under gunicorn, as reviews need it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from webhook.serving.connections import Connections
from webhook.serving.handshakes import Acceptor
from webhook.serving.protocol import ReviewProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uvicorn.config import Config

    from webhook.serving.connection import Connection

ANSWER_SECONDS = 4
"""How long a stopping worker waits for reviews in flight: the API server gives up after the
webhook's timeoutSeconds, which is 2."""

NEWCOMER_SECONDS = 1
"""How long a stopping worker first waits for the requests of those who have just connected."""

_NEWCOMER_TICK = 0.01

_TICKS_A_SWEEP = 5
_TICKS_A_TRIM = 600


class ReviewServer(Server):
    """A server that counts its connections from the first moment, and ends those that stall.

    Args:
        config: uvicorn's, with the application.
        connections: Where connections are counted.
        started: Called once connections are accepted.
        parent: The process without which this one shall not go on.
    """

    def __init__(
        self,
        config: Config,
        connections: Connections,
        started: Callable[[], None],
        parent: int,
    ) -> None:
        super().__init__(config)
        self.server_state: Connections = connections
        self._started = started
        self._parent = parent
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, then say so; the base class would begin each handshake unseen."""
        await self.lifespan.startup()
        self.servers = []
        context = self.config.ssl
        assert context is not None  # noqa: S101 - ReviewWorker has set it
        for listener in sockets or ():
            acceptor = Acceptor(listener, context, self.server_state, self._protocol)
            acceptor.start()
            self._acceptors.append(acceptor)
        self.started = True
        self._started()

    async def on_tick(self, counter: int) -> bool:
        """Do what is due; called ten times a second."""
        if counter % _TICKS_A_TRIM == 0:
            _give_back_memory()
        if counter % _TICKS_A_SWEEP == 0:
            self.server_state.sweep()
            # Without the master nobody replaces this worker or passes on a signal, and a new
            # master would find its ports taken.
            if os.getppid() != self._parent:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what has been asked, and what those ask who have just connected; then end."""
        self.server_state.stopping = True
        for acceptor in self._acceptors:
            acceptor.stop()
        loop = asyncio.get_running_loop()
        end = loop.time() + NEWCOMER_SECONDS
        while self.server_state.newcomers and loop.time() < end:
            await asyncio.sleep(_NEWCOMER_TICK)
        self.server_state.end_handshakes()
        await super().shutdown(sockets)

    def _protocol(self, connection: Connection) -> ReviewProtocol:
        return ReviewProtocol(self.config, self.server_state, self.lifespan.state, connection)


class ReviewWorker(UvicornWorker):  # type: ignore[misc]  # uvicorn_worker ships no types
    """gunicorn's worker for an application of ``webhook.serving.server``."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it as an instance's attribute
        "loop": "uvloop",
        "http": ReviewProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": ANSWER_SECONDS,
    }

    def __init__(self, age: int, ppid: int, sockets: Any, app: Any, *rest: Any) -> None:
        # The context comes to be in the worker process, when the application is loaded.
        self.CONFIG_KWARGS = {
            **self.CONFIG_KWARGS,
            "ssl_context_factory": lambda _config, _default: app.tls_context,
        }
        super().__init__(age, ppid, sockets, app, *rest)

    async def _serve(self) -> None:
        """Serve until a signal says stop; the base class's method, but for the signals."""
        self.config.app = self.wsgi
        # What a client sends wrong is counted; a line for each would let it fill the log.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        metrics = self.app.metrics
        connections = Connections(
            self.app.connection_limits,
            asyncio.get_running_loop().time,
            metrics.count_closed_connection,
            self.app.client_refusal,
        )
        metrics.watch_connections(lambda: connections.in_handshake, lambda: connections.established)
        server = ReviewServer(self.config, connections, self.app.announce, self.ppid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            # uvicorn raises the signal again once it has stopped. With the default action that
            # would end the process before the operations port is closed.
            signal.signal(number, server.handle_exit)
        await server.serve(sockets=self.sockets)

    def run(self) -> None:
        """Serve, then close the operations port."""
        try:
            super().run()
        finally:
            self.app.close()


def _give_back_memory() -> None:
    """Have the C library return to the system what it has freed.

    uvloop takes 256 KiB for each TLS connection. What a flood of them took glibc keeps for the
    next one, and each flood touches more of it: 84 MB after 300 connections at once.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class SingleWorkerArbiter(Arbiter):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's master process, for one worker and no other: each would hold its own facts."""

    def handle_ttin(self) -> None:
        """Do nothing; gunicorn would start a further worker on SIGTTIN."""

    def handle_ttou(self) -> None:
        """Do nothing; gunicorn would end a worker on SIGTTOU."""

    def handle_usr2(self) -> None:
        """Do nothing; gunicorn would start a second master on SIGUSR2, for the same ports."""

"""The worker process: uvicorn under gunicorn, as reviews need it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from webhook.serving.connections import ConnectionState, ReviewProtocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uvicorn.config import Config

ANSWER_SECONDS = 4
"""How long a stopping worker waits for reviews in flight: the API server gives up after the
webhook's timeoutSeconds, which is 2."""

_TICKS_A_SECOND = 10


class ReviewServer(Server):
    """A server that says when it has begun to serve, and ends connections that stall."""

    def __init__(
        self, config: Config, connections: ConnectionState, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.server_state: ConnectionState = connections
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, then say so.

        The base class's method as far as gunicorn's sockets go. It gives no limit to the
        handshake, and uvloop's own is a minute.
        """
        await self.lifespan.startup()
        config, loop = self.config, asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=self.server_state.stall_seconds,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self._started()

    async def on_tick(self, counter: int) -> bool:
        """Do what is due; called ten times a second."""
        if counter % _TICKS_A_SECOND == 0:
            self.server_state.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _protocol(self) -> ReviewProtocol:
        return ReviewProtocol(self.config, self.server_state, self.lifespan.state)


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
        connections = ConnectionState(
            self.app.stall_seconds, self.app.most_connections, self.app.client_refusal
        )
        server = ReviewServer(self.config, connections, self.app.announce)
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

"""The worker process: uvicorn under gunicorn, as reviews need it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from uvicorn.config import Config

ANSWER_SECONDS = 4
"""How long a stopping worker waits for reviews in flight: the API server gives up after the
webhook's timeoutSeconds, which is 2."""

CLOSE_NOTIFY_SECONDS = 1
"""How long a closed connection waits for the peer's close_notify; uvloop would wait 30."""


class ReviewProtocol(HttpToolsProtocol):
    """A connection that ends soon after the server closed it, whatever the peer does.

    An idle client of the API server's kind keeps its connection for 90 seconds and need not
    answer the close_notify of TLS; without this, such connections would hold a stop.
    """

    def shutdown(self) -> None:
        """Close the connection if it is idle, else after its response."""
        super().shutdown()
        self._abort_if_closing()

    def on_response_complete(self) -> None:
        """Go on with the next request, if the connection is kept."""
        super().on_response_complete()
        self._abort_if_closing()

    def _abort_if_closing(self) -> None:
        if self.transport.is_closing():
            self.loop.call_later(CLOSE_NOTIFY_SECONDS, self.transport.abort)


class ReviewServer(Server):
    """A server that says when it has begun to serve."""

    def __init__(self, config: Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, then say so."""
        await super().startup(sockets)
        self._started()


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
        server = ReviewServer(self.config, self.app.announce)
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

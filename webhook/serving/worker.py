"""The worker process under gunicorn: it serves reviews until a signal says stop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import uvloop
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from webhook.serving.connections import Connections
from webhook.serving.handshakes import CLOSE_SECONDS, Acceptor
from webhook.serving.protocol import ReviewProtocol
from webhook.serving.readiness import REVIEWS

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from webhook.serving.connection import Connection
    from webhook.serving.reviewing import Reviews

ANSWER_SECONDS = 4
"""How long a stopping worker waits for reviews in flight: the API server gives up after the
webhook's timeoutSeconds, which is 2."""

NEWCOMER_SECONDS = 1
"""How long a stopping worker first waits for the requests of those who have just connected."""

LINGER_SECONDS = 2
"""How long a stopping worker then waits for one more request on each kept connection: its answer
says that the connection is closed. To close an idle one can cross with a request on its way, which
Go's client does not send again where it is a POST (``shouldRetryRequest`` in its
net/http/transport.go)."""

_STOP_TICK = 0.01

_SWEEP_SECONDS = 0.5
_SWEEPS_A_TRIM = 120


class ReviewServer:
    """Takes connections, and answers the reviews on them.

    Args:
        listeners: Listen, and do not block.
        context: For TLS.
        connections: Where connections are counted.
        reviews: Answers.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        context: ssl.SSLContext,
        connections: Connections,
        reviews: Reviews,
    ) -> None:
        self._connections = connections
        self._reviews = reviews
        self._acceptors = [
            Acceptor(listener, context, connections, self._protocol) for listener in listeners
        ]

    def start(self) -> None:
        """Begin to accept connections."""
        for acceptor in self._acceptors:
            acceptor.start()

    def judge_clients(self) -> None:
        """Look again which clients get an answer: there is another certificate, or other CAs."""
        for conversation in self._connections.conversations():
            conversation.judge_client()

    async def stop(self) -> None:
        """Answer what has been asked, and once more whoever is connected; then end."""
        connections = self._connections
        connections.stopping = True
        for acceptor in self._acceptors:
            acceptor.stop()
        await _until(lambda: not connections.newcomers, NEWCOMER_SECONDS)
        connections.end_handshakes()
        await _until(lambda: not connections.idle, LINGER_SECONDS)
        for conversation in connections.conversations():
            conversation.shutdown()
        await _until(lambda: not connections.established, ANSWER_SECONDS)
        for conversation in connections.conversations():
            conversation.give_up()
        await _until(lambda: not connections.established, CLOSE_SECONDS)

    def _protocol(self, connection: Connection) -> ReviewProtocol:
        return ReviewProtocol(self._reviews, self._connections, connection)


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds, but not for long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(_STOP_TICK)


class ReviewWorker(Worker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's worker for an application of ``webhook.serving.server``."""

    def init_signals(self) -> None:
        """Let signals do what they do in any program, until the event loop runs."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)

    def run(self) -> None:
        """Serve, then close the operations port."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        finally:
            self.app.close()

    async def _serve(self) -> None:
        """Serve until a signal says stop, or nobody is left who could."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def stop(*_: object) -> None:
            # They come from the terminal and from the master, and may come after the loop's end.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(stopped.set)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, stop)
        metrics = self.app.metrics
        connections = Connections(
            self.app.connection_limits,
            loop.time,
            metrics.count_closed_connection,
            self.app.client_refusal,
        )
        metrics.watch_connections(lambda: connections.in_handshake, lambda: connections.established)
        server = ReviewServer(self.sockets, self.app.tls_context, connections, self.wsgi)
        server.start()
        readiness = self.app.readiness
        readiness.sign_of_life(REVIEWS)
        self.app.announce()
        sweeps = 0
        judged_by = self.app.tls_context.current
        # Without the master nobody replaces this worker or passes on a signal, and a new master
        # would find its ports taken.
        while not stopped.is_set() and os.getppid() == self.ppid:
            self.notify()
            readiness.sign_of_life(REVIEWS)
            connections.sweep()
            if judged_by is not (now := self.app.tls_context.current):
                judged_by = now
                server.judge_clients()
            if sweeps % _SWEEPS_A_TRIM == 0:
                _give_back_memory()
            sweeps += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(_SWEEP_SECONDS):
                    await stopped.wait()
        readiness.report(REVIEWS, False, "the server is stopping")
        await server.stop()


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

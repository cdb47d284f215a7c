"""The accepting side of the admission port: every connection counts from its first moment."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

from webhook.serving.connection import Connection, Ending, Stage
from webhook.serving.connections import Connections
from webhook.serving.listening import BACKLOG

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE_SECONDS = 1
"""How long a closed connection waits for its peer to take the rest and to send close_notify;
uvloop would wait 30."""

_ACCEPTED_AT_ONCE = 64
"""Connections taken from the system before others are served: it costs 20 µs each."""

_BEGUN_AT_ONCE = 8
"""Handshakes begun in one round of the event loop, at about 0.3 ms each."""

_PAUSE_SECONDS = 0.1


class Acceptor:
    """Accepts connections, and begins their handshakes a few at a time.

    ``create_server(ssl=…)`` would begin each handshake where the connection is accepted, and
    tell nobody of it before it is done. Here a connection is first counted, and waited on until
    its peer has begun, which costs little; the handshakes, which cost much, are taken up a few in
    each round of the event loop, peer by peer in turn. So a thousand clients who come at once
    hold up neither the requests on other connections nor the handshake of another peer.

    Args:
        listener: Listens, and does not block.
        context: For TLS.
        connections: Where each connection is counted.
        protocol: Makes the protocol that takes requests after the handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        protocol: Callable[[Connection], asyncio.BaseProtocol],
    ) -> None:
        self._listener = listener
        self._context = context
        self._connections = connections
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._unread_ms = int(1000 * (connections.limits.stall_seconds + CLOSE_SECONDS))
        self._handshakes: set[asyncio.Task[None]] = set()
        # Whether any have begun in this round of the event loop.
        self._busy = False
        self._stopped = False

    def start(self) -> None:
        """Begin to accept."""
        if not self._stopped:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Accept what has connected so far, and have the system refuse whoever comes later."""
        self._stopped = True
        self._loop.remove_reader(self._listener.fileno())
        for _ in range(BACKLOG // _ACCEPTED_AT_ONCE):
            # More may come all the while.
            if not self._accept():
                break
        self._listener.close()

    def _accept(self) -> bool:
        """Accept some connections; return whether there may be more."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:
                continue
            except OSError:
                # No file descriptor or no memory is left. The listener would be reported ready
                # again and again meanwhile.
                self._pause()
                return False
            # What is still unread when a connection has been closed in good order is known to
            # the system alone.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unread_ms)
            connection = self._connections.admit(accepted, address[0])
            if connection is None:
                continue
            if _has_sent(accepted):
                self._queue(connection)
            else:
                self._loop.add_reader(accepted, self._hear, connection)
        return True

    def _hear(self, connection: Connection) -> None:
        """Go on with a connection whose peer has sent something, or has gone."""
        self._loop.remove_reader(connection.socket)
        if connection.stage is Stage.ENDED:
            connection.socket.close()
            self._connections.lost(connection)
        else:
            self._queue(connection)

    def _pause(self) -> None:
        self._connections.make_room()
        if not self._stopped:
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(_PAUSE_SECONDS, self.start)

    def _queue(self, connection: Connection) -> None:
        """Have the handshake begin, at once if none has begun in this round of the event loop."""
        self._connections.ready(connection)
        if not self._busy:
            self._begin()

    def _begin(self) -> None:
        """Begin the next handshakes, and those that are ready then in the next round."""
        self._busy = False
        for _ in range(_BEGUN_AT_ONCE):
            connection = self._connections.next_handshake()
            if connection is None:
                break
            self._busy = True
            handshake = self._loop.create_task(self._shake_hands(connection))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)
        if self._busy:
            self._loop.call_soon(self._begin)

    async def _shake_hands(self, connection: Connection) -> None:
        how = Ending.CLIENT
        connection.greet()
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(connection),
                connection.socket,
                ssl=self._context,
                # The sweep comes first, and counts; uvloop's own is a minute.
                ssl_handshake_timeout=self._connections.limits.stall_seconds + CLOSE_SECONDS,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
        except ssl.SSLError:
            how = Ending.FAILED_HANDSHAKE
        except OSError:
            pass
        finally:
            if connection.transport is None:
                self._connections.lost(connection, how)


def _has_sent(accepted: socket.socket) -> bool:
    """Whether the peer has sent something, or has gone."""
    try:
        accepted.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

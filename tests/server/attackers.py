"""Clients that mean harm, from loopback addresses of their own."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from tests.server.running import SECONDS

HEAD = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Target(Protocol):
    """A server, and what its clients trust."""

    port: int
    tls: ssl.SSLContext


def request(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


REVIEW = request(b"{}")


def plain(server: Target, address: str = "127.0.0.1", room: int = 0) -> socket.socket:
    """Connect; ``room`` is how many bytes the system may take in before they are read."""
    connection = socket.socket()
    if room:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    connection.settimeout(SECONDS)
    connection.bind((address, 0))
    connection.connect(("127.0.0.1", server.port))
    return connection


def secure(server: Target, address: str = "127.0.0.1", room: int = 0) -> ssl.SSLSocket:
    """Connect, and complete the handshake."""
    return server.tls.wrap_socket(plain(server, address, room), server_hostname="localhost")


def read_to_end(connection: socket.socket) -> bytes:
    """Return what still comes before the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
        pass
    return b"".join(parts)


class Crowd:
    """Connections that are held until the server ends them."""

    def __init__(self) -> None:
        self.lived: list[float] = []
        self._held: dict[socket.socket, tuple[float, Callable[[Any], None] | None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(
        self, connection: socket.socket, each_second: Callable[[Any], None] | None = None
    ) -> None:
        """Hold a connection, and do something with it each second."""
        self._held[connection] = (time.monotonic(), each_second)

    def watch(self, seconds: float) -> int:
        """Wait until all are ended; return how many are not, after so many seconds."""
        end = time.monotonic() + seconds
        while self._held and time.monotonic() < end:
            time.sleep(0.25)
            for connection, (since, each_second) in list(self._held.items()):
                if _ended(connection):
                    self._drop(connection, since)
                elif each_second is not None:
                    try:
                        each_second(connection)
                    except OSError:
                        self._drop(connection, since)
        return len(self._held)

    def _drop(self, connection: socket.socket, since: float) -> None:
        self.lived.append(time.monotonic() - since)
        del self._held[connection]
        connection.close()

    def close(self) -> None:
        for connection in self._held:
            connection.close()
        self._held.clear()


def _ended(connection: socket.socket) -> bool:
    """Whether the server has ended a connection, without reading anything from it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


class Stampede:
    """Clients that begin their handshakes at the same moment, and do not finish them."""

    def __init__(self, server: Target, address: str, number: int) -> None:
        self._hellos = []
        for _ in range(number):
            outgoing = ssl.MemoryBIO()
            tls = server.tls.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._hellos.append(outgoing.read())
        self._connections = [plain(server, address) for _ in range(number)]

    def begin(self) -> None:
        for connection, hello in zip(self._connections, self._hellos, strict=True):
            # Some have been shed already.
            with suppress(ConnectionError):
                connection.sendall(hello)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

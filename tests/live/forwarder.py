"""A TCP forwarder before a real server: cuts connections, or lets them fall silent."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Forwarder:
    """Listens at the host of its target, on a port of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._closed = False
        self._refusing = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End every connection that is open now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.end()

    def silence(self) -> None:
        """Forward nothing any more on the connections that are open now, and leave them open."""
        with self._lock:
            for pair in self._pairs:
                pair.silent = True

    def refuse(self, refusing: bool) -> None:
        """End every new connection at once, or no more."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def close(self) -> None:
        """End everything."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(5)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server)
            with self._lock:
                over = [pair for pair in self._pairs if pair.ended]
                self._pairs = [pair for pair in self._pairs if not pair.ended] + [pair]
            pair.start()
            for one in over:
                one.end()


class _Pair:
    """One forwarded connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        server.settimeout(None)
        self._sockets = client, server
        self._threads = [
            threading.Thread(target=self._forward, args=ends, daemon=True)
            for ends in ((client, server), (server, client))
        ]
        self.silent = False
        self.ended = False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.ended = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in self._sockets:
            one.close()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.silent:
                    sink.sendall(data)
        if not self.silent:
            self.ended = True
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

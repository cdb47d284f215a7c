"""A TCP forwarder before real servers: leads to them, cuts connections, lets them fall silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress

Target = tuple[str, int]


class Forwarder:
    """Listens, and leads each new connection to the next of its targets.

    As before a Service, a target that is gone is tried until it is taken out, an open connection
    stays when its target is taken out, and without targets connections are refused.

    Args:
        host: Where it listens.
        targets: Hosts and ports where it leads.
        port: At which it listens; 0 lets the system choose.
    """

    def __init__(self, host: str, targets: Iterable[Target], port: int = 0) -> None:
        self._host = host
        self._targets: tuple[Target, ...] = ()
        self._next = 0
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self._listener, self._thread = self._listen(port)
        self.port: int = self._listener.getsockname()[1]
        self.lead_to(targets)

    def lead_to(self, targets: Iterable[Target]) -> None:
        """Take other targets; connections that are open stay."""
        self._targets = tuple(targets)
        if self._targets:
            self._listen_again()
        else:
            self._stop_listening()

    def refuse(self, refusing: bool) -> None:
        """Refuse every new connection and end the open ones, or lead to the targets again."""
        if refusing:
            self.close()
        else:
            self._listen_again()

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

    def close(self) -> None:
        """End everything."""
        self._stop_listening()
        self.cut()

    def _listen_again(self) -> None:
        if self._listener.fileno() == -1:
            self._listener, self._thread = self._listen(self.port)

    def _listen(self, port: int) -> tuple[socket.socket, threading.Thread]:
        listener = socket.create_server((self._host, port))
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()
        return listener, thread

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target(), timeout=5)
            except OSError:
                # As near to a refusal as a forwarder comes.
                client.close()
                continue
            pair = _Pair(client, server)
            with self._lock:
                over = [pair for pair in self._pairs if pair.ended]
                self._pairs = [pair for pair in self._pairs if not pair.ended] + [pair]
            pair.start()
            for one in over:
                one.end()

    def _target(self) -> Target:
        targets = self._targets
        if not targets:
            raise ConnectionRefusedError
        self._next += 1
        return targets[self._next % len(targets)]


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

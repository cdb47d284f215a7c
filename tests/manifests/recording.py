"""A webhook that allows everything and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.testbed.bed.certificates import KeyPair


class Recorder:
    """Every review that arrived, as the API server sent it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reviews: list[tuple[str, dict[str, Any]]] = []

    def add(self, path: str, request: dict[str, Any]) -> None:
        with self._lock:
            self._reviews.append((path, request))

    def taken(self) -> list[tuple[str, dict[str, Any]]]:
        """Return path and request of what arrived since the last call."""
        with self._lock:
            taken, self._reviews = self._reviews, []
        return taken


@contextmanager
def recording(address: str, port: int, certificate: KeyPair) -> Iterator[Recorder]:
    """Serve at an address until the block ends."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            recorder.add(self.path.partition("?")[0], review["request"])
            response = {"uid": review["request"]["uid"], "allowed": True}
            answer = json.dumps({**review, "request": None, "response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with ThreadingHTTPServer((address, port), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()

"""A server that runs as a process of its own, for the tests."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
HANDSHAKE_FAILS = (ssl.SSLError, ConnectionError)
"""What a client meets; uvloop closes without the alert that would say why."""
SECONDS = 20
"""How long a test waits before it gives up; nothing comes near it."""


def start(**settings: Any) -> subprocess.Popen[str]:
    """Start tests/server/program.py, on free ports unless the settings say otherwise."""
    given = {"bind": "127.0.0.1", "port": 0, "ops_port": 0, **settings}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.server.program", json.dumps(given, default=str)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(**settings: Any) -> tuple[int, str]:
    """Run a server that cannot start; return its exit status and what it says on stderr."""
    process = start(**settings)
    try:
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, errors


def outward_address() -> str:
    """Return an address of this machine but loopback: as far away as a server can tell.

    The test is skipped where there is none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
        return address


class RunningServer:
    """A server that has begun to serve, with a development certificate."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        ports = folder / "ports.json"
        self.process = start(certs_dir=folder / "certs", ports_file=ports, **settings)
        assert self.process.stderr is not None
        self.first_line = self.process.stderr.readline()
        assert "reviews on" in self.first_line, self.first_line + self.process.stderr.read()
        found = json.loads(ports.read_text())
        self.port: int = found["port"]
        self.ops_port: int = found["opsPort"]
        authority = settings.get("tls_ca", folder / "certs" / "ca.crt")
        self.tls = ssl.create_default_context(cafile=authority)

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        pid = self.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def worker(self) -> int:
        """The process id of its only worker."""
        (worker,) = self.workers
        return worker

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self.port, context=self.tls, timeout=SECONDS
        )

    def ask(
        self, path: str, body: Any = b"{}", method: str = "POST", headers: Any = JSON
    ) -> Answer:
        connection = self.connection()
        try:
            return ask(connection, path, body, method, headers)
        finally:
            connection.close()

    @contextmanager
    def held_review(self, folder: Path) -> Iterator[Future[Answer]]:
        """Have a review decided for as long as the block lasts; it is answered after that."""
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        with ThreadPoolExecutor(1) as other:
            review = other.submit(self.ask, "/validate", b"wait " + str(pipe).encode())
            with pipe.open("wb"):  # returns once the review has opened its end
                yield review

    def half_a_review(self) -> http.client.HTTPSConnection:
        """Send a part of a body; the connection is left open for the rest."""
        connection = self.connection()
        connection.putrequest("POST", "/validate")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "100")
        connection.endheaders()
        connection.send(b"half of it")
        return connection

    def operations(self, path: str, method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.ops_port, timeout=SECONDS)
        try:
            return ask(connection, path, None, method, {})
        finally:
            connection.close()

    def stop(self) -> str:
        """Send SIGTERM; return what was said on stderr after the first line."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> str:
        _, errors = self.process.communicate(timeout=SECONDS)
        return errors

    def close(self) -> None:
        """End the server however the test went."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Answer:
    """A response, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any = b"{}",
    method: str = "POST",
    headers: Any = JSON,
) -> Answer:
    connection.request(method, path, body=body, headers=headers)
    return Answer(connection.getresponse())


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def measured(server: RunningServer, name: str) -> float:
    """Return the value of a metric; its labels are part of the name."""
    lines = server.operations("/metrics").text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))

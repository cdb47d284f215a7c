"""An honest client in a process of its own, beside whatever else a test does to the server.

Usage: honest.py PORT CA_FILE

It asks 20 times a second on a connection it keeps, and twice a second on a fresh one, until its
standard input ends; then it prints how that went, as JSON.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.server.running import CHECKOUT, JSON, SECONDS, RunningServer

KEPT_EVERY, FRESH_EVERY = 0.05, 0.5


@dataclass
class Findings:
    """What an honest client met with; times in seconds."""

    kept: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    overslept: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reconnected: bool = False

    @property
    def starved(self) -> float:
        """For how long this machine let the client itself wait."""
        return max(self.overslept)


@contextmanager
def honest_client(server: RunningServer) -> Iterator[Findings]:
    """Run the client while the block runs; the findings are there after the block."""
    findings = Findings()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.server.honest"),
            *(str(server.port), str(server.folder / "certs" / "ca.crt")),
        ],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield findings
        printed, _ = process.communicate(timeout=SECONDS)
        for name, value in json.loads(printed).items():
            setattr(findings, name, value)
    finally:
        process.kill()
        process.communicate()


class _Client:
    def __init__(self, port: int, authority: str) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=authority)
        self.findings = Findings()
        self.ended = threading.Event()

    def ask_on_one(self) -> None:
        connection = self._connection()
        self._ask(connection)
        first = connection.sock
        print("begun", flush=True)
        while self._sleep(KEPT_EVERY):
            self._timed(self.findings.kept, connection)
            self.findings.reconnected |= connection.sock is not first
        connection.close()

    def ask_on_fresh_ones(self) -> None:
        while self._sleep(FRESH_EVERY):
            connection = self._connection()
            self._timed(self.findings.fresh, connection)
            connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self._port, context=self._tls, timeout=SECONDS
        )

    def _ask(self, connection: http.client.HTTPSConnection) -> None:
        connection.request("POST", "/validate", body=b"{}", headers=JSON)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"HTTP {response.status}")

    def _timed(self, times: list[float], connection: Any) -> None:
        start = time.monotonic()
        try:
            self._ask(connection)
        except (OSError, http.client.HTTPException) as error:
            self.findings.failures.append(repr(error))
        times.append(time.monotonic() - start)

    def _sleep(self, seconds: float) -> bool:
        start = time.monotonic()
        ended = self.ended.wait(seconds)
        self.findings.overslept.append(time.monotonic() - start - seconds)
        return not ended


def main() -> None:
    client = _Client(int(sys.argv[1]), sys.argv[2])
    threads = [
        threading.Thread(target=client.ask_on_one),
        threading.Thread(target=client.ask_on_fresh_ones),
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    client.ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps(vars(client.findings)))


if __name__ == "__main__":
    main()

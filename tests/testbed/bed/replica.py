"""One server of an installation of the guard."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.testbed.bed.component import Component
from tests.testbed.bed.testbed import TestBed

OPS_PORT = 8080
_LOG_LAG = 0.05
"""Seconds, several times what a line waits for its writer."""


class Replica:
    """A server at an address of its own, as a pod has one; its ports are those of the manifests.

    Args:
        bed: Its programs' logs and lifetimes are the bed's.
        name: In messages, and of its log.
        address: At which it listens.
        arguments: Of ``serve``, beside the address.
    """

    def __init__(
        self, bed: TestBed, name: str, address: str, arguments: Sequence[str | Path]
    ) -> None:
        self._bed = bed
        self.name = name
        self.address = address
        command = [
            *(sys.executable, "-m", "webhook.cli", "serve"),
            *(*arguments, f"--bind={address}"),
        ]
        self._log = bed.plane.log(name)
        self._process = Component(
            name, command, self._log, lambda: self.ask("/readyz")[0] == http.HTTPStatus.OK
        )

    def start(self) -> None:
        """Start it, and wait until it has read the cluster."""
        self._bed.more.append(self._process)
        self._process.start()
        self._process.wait_until_ready()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process that a pod would have as its first, as kubelets do."""
        os.kill(self._process.pid, signal.SIGTERM)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all of its processes; does nothing where they have ended."""
        self._process.stop(how)
        if self._process in self._bed.more:
            self._bed.more.remove(self._process)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Let all of its processes do nothing; the system still takes connections for them."""
        self._process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """Whether its first process is there."""
        return self._process.running

    def ask(self, where: str) -> tuple[int, str]:
        """Ask the operations port; status 0 where nobody answers."""
        connection = http.client.HTTPConnection(self.address, OPS_PORT, timeout=5)
        try:
            connection.request("GET", where)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metrics(self, name: str) -> dict[str, float]:
        """Return the samples of a metric that has one label, by the label's value."""
        _, text = self.ask("/metrics")
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return {value: s.value for s in samples if s.name == name for value in s.labels.values()}

    def _settled_log(self) -> list[str]:
        """Return the lines of the log once none has come for a while.

        A thread writes them some milliseconds after the answer has left.
        """
        size, text = -1, ""
        while len(text) != size:
            size = len(text)
            time.sleep(_LOG_LAG)
            text = self._log.read_text(encoding="utf-8")
        return text.splitlines()

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions that it has logged, the oldest first."""
        lines = [json.loads(line) for line in self._settled_log() if line.startswith("{")]
        return [line for line in lines if line.get("message") == "decision"]

"""From exec to the first answered review, on files: the sample cluster and a given certificate."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from webhook.serving.certificates import development_certificate

RUNS = 15
TARGET_SECONDS = 0.5
GIVE_UP_SECONDS = 30.0
CHECKOUT = Path(__file__).parents[1]
INVENTORY = CHECKOUT / "webhook" / "demo" / "inventory"
REVIEW = (CHECKOUT / "tests" / "fixtures" / "demo-migration.json").read_bytes()


def free_ports() -> list[int]:
    with ExitStack() as both:
        listeners = [both.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "12"]
        return [listener.getsockname()[1] for listener in listeners]


def first_answer(port: int, tls: ssl.SSLContext, began: float) -> float:
    """Ask until a review is answered; return how long that took, in seconds."""
    while (took := time.perf_counter() - began) < GIVE_UP_SECONDS:
        connection = http.client.HTTPSConnection("localhost", port, context=tls, timeout=5)
        try:
            connection.request("POST", "/validate", REVIEW, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            assert answer["response"]["allowed"] is False
            return time.perf_counter() - began
        except OSError:
            time.sleep(0.002)
        finally:
            connection.close()
    raise SystemExit(f"no answer after {took:.0f} s")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = development_certificate(Path(folder), datetime.now(UTC))
        tls = ssl.create_default_context(cafile=files.authority)
        program = [sys.executable, Path(sys.executable).with_name("migration-guard"), "serve"]
        given = ["--tls-cert", files.certificate, "--tls-key", files.key]
        given += ["--inventory", INVENTORY, "--bind", "127.0.0.1"]
        times, spent = [], []
        for _ in range(RUNS):
            port, ops_port = free_ports()
            before = os.times()
            began = time.perf_counter()
            server = subprocess.Popen(
                [*program, *given, "--port", str(port), "--ops-port", str(ops_port)],
                stderr=subprocess.DEVNULL,
            )
            try:
                times.append(first_answer(port, tls, began))
            finally:
                server.terminate()
                server.wait()
            after = os.times()
            spent.append(
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
    median = statistics.median(times)
    verdict = "within" if median <= TARGET_SECONDS else "OVER"
    print(f"  {RUNS} starts on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} a minute")
    print(f"  median {median:.2f} s, {min(times):.2f} to {max(times):.2f}", end="; ")
    print(f"{verdict} the target of {TARGET_SECONDS} s")
    print(f"  CPU of a start and a stop: median {statistics.median(spent):.2f} s")


if __name__ == "__main__":
    main()

"""``make soak``: the server for an hour, with all that happens to it in a year.

Real reviews, on connections that are kept and on fresh ones; configuration, inventory and
certificates that are replaced, broken ones among them; attacks now and then. It fails when a
review fails, or when memory goes on growing after the first ten minutes.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.server.attackers import Crowd, Stampede, plain, request, secure
from tests.server.certificates import Certificate, issued
from tests.server.running import CHECKOUT, JSON, SECONDS

REVIEWS = sorted((CHECKOUT / "tests" / "fixtures" / "reviews-1.8.4").glob("*.json"))
INVENTORY = CHECKOUT / "webhook" / "demo" / "inventory"
KEPT_CLIENTS, KEPT_EVERY, FRESH_EVERY = 4, 0.04, 0.2
CONFIGURE_EVERY, INVENTORY_EVERY, CERTIFICATE_EVERY, ATTACK_EVERY = 20.0, 30.0, 60.0, 120.0
WARM_UP_MINUTES = 10
MOST_GROWTH = 1.05
"""Memory of the last quarter against that of the first after the warm-up."""
ELSEWHERE = "127.0.0.2"
CONFIGURATIONS = (
    "maxMode: enforce\n",
    "maxMode: warn\n",
    "maxMode: [\n",
    "messages: {nodeNames: false}\n",
)
INVENTORIES = (
    "apiVersion: v1\nkind: Node\nmetadata: {name: of-the-moment}\nspec: {unschedulable: true}\n",
    "apiVersion: v1\nkind: Node\nmetadata: [\n",
    "",
)
TORN = 3.0
"""Seconds."""


class Guard:
    """``migration-guard serve``, with the audit, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory, self.configuration = folder / "inventory", folder / "guard.yaml"
        shutil.copytree(INVENTORY, self.inventory)
        self.configuration.write_text(CONFIGURATIONS[0])
        self.served = folder / "served"
        self._rotations = 0
        self.tls = ssl.create_default_context()
        self.use(self._certificate())
        ports = folder / "ports.json"
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "webhook.cli", "serve", "--bind", "127.0.0.1"),
                *("--port", "0", "--ops-port", "0", "--ports-file", ports),
                *("--inventory", self.inventory, "--config", self.configuration),
                *("--tls-cert", self.served / "tls.crt", "--tls-key", self.served / "tls.key"),
                *("--audit-dir", folder / "audit"),
            ],
            cwd=CHECKOUT,
            stderr=self._log,
        )
        end = time.monotonic() + SECONDS
        while "reviews on" not in (folder / "log").read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.05)
        self.port: int = json.loads(ports.read_text())["port"]

    def _certificate(self) -> Certificate:
        self._rotations += 1
        return issued(self.folder / f"certificate-{self._rotations}", "localhost", "127.0.0.1")

    def use(self, certificate: Certificate, torn: float = 0.0) -> None:
        """Put a certificate where the server looks for it; clients trust it from now on.

        Args:
            certificate: The certificate, with its key.
            torn: For how many seconds the new key lies beside the old certificate.
        """
        self.tls.load_verify_locations(certificate.authority)
        self.served.mkdir(exist_ok=True)
        for file in (certificate.key, certificate.certificate):
            fresh = self.served / f"{file.name}.new"
            shutil.copy(file, fresh)
            fresh.replace(self.served / file.name)
            time.sleep(torn)

    def rotate(self) -> None:
        """Replace the certificate, so slowly that the server sees a pair that is none."""
        self.use(self._certificate(), TORN)

    def change_inventory(self, text: str) -> None:
        """Add a node, or break its file, or with no text take it away; and touch all others."""
        node = self.inventory / "node-of-the-moment.yaml"
        if text:
            node.write_text(text)
        else:
            node.unlink(missing_ok=True)
        for file in self.inventory.rglob("*.yaml"):
            file.touch()

    def memory(self) -> float:
        """Return the memory of all its processes in MiB (Pss)."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return _pss(pid) + sum(_pss(int(child)) for child in children)

    def stop(self) -> None:
        """End it as Kubernetes does."""
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Clients:
    """Clients that ask what was captured of a real cluster, one review after the other."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._reviews = [(_path_of(file), file.read_bytes()) for file in REVIEWS]
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self.times: list[float] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def ask_on_kept(self) -> None:
        """Ask on one connection until the end."""
        connection = self._connection()
        number = 0
        while not self.ended.wait(KEPT_EVERY):
            self._ask(connection, number)
            number += 1
        connection.close()

    def ask_on_fresh(self) -> None:
        """Ask on a new connection each time until the end."""
        number = 0
        while not self.ended.wait(FRESH_EVERY):
            connection = self._connection()
            self._ask(connection, number)
            connection.close()
            number += 1

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "localhost", self._guard.port, context=self._guard.tls, timeout=SECONDS
        )

    def _ask(self, connection: http.client.HTTPSConnection, number: int) -> None:
        path, body = self._reviews[number % len(self._reviews)]
        began = time.monotonic()
        try:
            connection.request("POST", f"{path}?timeout=2s", body=body, headers=JSON)
            response = connection.getresponse()
            answer = response.read()
            wrong = "" if response.status == 200 else f"HTTP {response.status}: {answer[:200]!r}"
            if (
                not wrong
                and json.loads(answer)["response"]["uid"] != json.loads(body)["request"]["uid"]
            ):
                wrong = "the answer to another review"
        except (OSError, http.client.HTTPException) as error:
            wrong = repr(error)
        with self._lock:
            self.answered += 1
            self.times.append(time.monotonic() - began)
            if wrong:
                self.failures[wrong] += 1


def _path_of(review: Path) -> str:
    return "/mutate" if "mutating" in review.name else "/validate"


def attack(guard: Guard) -> None:
    """Hold up what can be held up, for some seconds."""
    crowd = Crowd()
    with ExitStack() as ends:
        ends.callback(crowd.close)
        for number in range(64):
            with suppress(OSError):
                silent = plain(guard, ELSEWHERE)
                silent.sendall(b"\x16"[: number % 2])
                crowd.hold(silent)
        for _ in range(32):
            with suppress(OSError):
                half = secure(guard, ELSEWHERE)
                half.sendall(request(b"x" * 1000)[:-500])
                crowd.hold(half)
        with suppress(OSError):
            stampede = Stampede(guard, ELSEWHERE, 200)
            ends.callback(stampede.close)
            stampede.begin()
        crowd.watch(15)


class Trouble:
    """Does something again and again, in a thread of its own."""

    def __init__(self, every: float, do: Callable[[], None], ended: threading.Event) -> None:
        self._every, self._do, self._ended = every, do, ended

    def run(self) -> None:
        while not self._ended.wait(self._every):
            self._do()


def main() -> int:
    """Run for as long as is asked; return 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        guard = Guard(Path(folder))
        try:
            return _soak(guard, minutes)
        finally:
            guard.stop()


def _soak(guard: Guard, minutes: float) -> int:
    clients = Clients(guard)
    configurations, inventories = itertools.cycle(CONFIGURATIONS), itertools.cycle(INVENTORIES)

    def configure() -> None:
        guard.configuration.write_text(next(configurations))

    troubles = (
        Trouble(CONFIGURE_EVERY, configure, clients.ended),
        Trouble(INVENTORY_EVERY, lambda: guard.change_inventory(next(inventories)), clients.ended),
        Trouble(CERTIFICATE_EVERY, guard.rotate, clients.ended),
        Trouble(ATTACK_EVERY, lambda: attack(guard), clients.ended),
    )
    threads = [threading.Thread(target=clients.ask_on_kept) for _ in range(KEPT_CLIENTS)]
    threads += [
        threading.Thread(target=work) for work in (clients.ask_on_fresh, *(t.run for t in troubles))
    ]
    for thread in threads:
        thread.start()
    memory = []
    print("minute  reviews  p99 ms  memory MiB  failures", flush=True)
    try:
        for minute in range(1, round(minutes) + 1):
            time.sleep(60)
            times, clients.times = sorted(clients.times), []
            memory.append(guard.memory())
            print(
                f"{minute:>6}{clients.answered:>9,}{times[len(times) * 99 // 100] * 1e3:>8.0f}"
                f"{memory[-1]:>12.1f}{sum(clients.failures.values()):>10}",
                flush=True,
            )
    finally:
        clients.ended.set()
        for thread in threads:
            thread.join()
    return _judge(clients, memory)


def _judge(clients: Clients, memory: list[float]) -> int:
    for failure, number in clients.failures.most_common(10):
        print(f"failed {number} times: {failure}")
    settled = memory[min(WARM_UP_MINUTES, len(memory) // 3) :]
    quarter = max(1, len(settled) // 4)
    growth = statistics.median(settled[-quarter:]) / statistics.median(settled[:quarter])
    print(f"memory after the warm-up: {growth:.3f} times (at most {MOST_GROWTH})")
    return int(bool(clients.failures) or growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())

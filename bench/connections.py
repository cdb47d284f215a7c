"""What connections cost: a fresh one, memory of many, and a thousand handshakes at once."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import selectors
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
LAST_CORE = (os.cpu_count() or 1) - 1
FRESH = 500
IDLE = 500
UNFINISHED = 500
UNFINISHED_BYTES = 100_000
STAMPEDE = 1_000
WAIT = 60
HEADERS = {"Content-Type": "application/json"}
HEAD = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REQUEST = HEAD + b"Content-Length: 2\r\n\r\n{}"


class Server:
    """``migration-guard serve`` on the sample cluster, on the first core."""

    def __init__(self, folder: Path) -> None:
        ports = folder / "ports.json"
        self.process = subprocess.Popen(
            [
                *("taskset", "-c", "0", sys.executable, "-m", "webhook.cli", "serve"),
                *("--inventory", "webhook/demo/inventory", "--bind", HERE),
                *("--port", "0", "--ops-port", "0", "--ports-file", str(ports)),
                *("--certs-dir", str(folder / "certs")),
                # The stampede comes from one address, and shall be served whole.
                *("--most-connections", "1100", "--most-connections-per-peer", "1000"),
            ],
            cwd=CHECKOUT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if "reviews on" not in line:
            raise SystemExit(line + self.process.stderr.read())
        self.port: int = json.loads(ports.read_text())["port"]
        pid = self.process.pid
        self.worker = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        self.tls = ssl.create_default_context(cafile=folder / "certs" / "ca.crt")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()

    def memory(self) -> str:
        """Return the resident memory of the worker."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return f"{int(status.partition('VmRSS:')[2].split()[0]) / 1024:.0f} MiB"

    def cpu(self) -> float:
        """Return the seconds of processor time the worker has had."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=WAIT)


def ask(connection: http.client.HTTPSConnection) -> None:
    connection.request("POST", "/validate", body=b"{}", headers=HEADERS)
    connection.getresponse().read()


def ask_on_fresh_one(server: Server) -> None:
    connection = server.connection()
    ask(connection)
    connection.close()


class Stampede:
    """Clients that begin their handshakes at the same moment, and send one request each."""

    def __init__(self, server: Server) -> None:
        self._selector = selectors.DefaultSelector()
        self._hellos = []
        for _ in range(STAMPEDE):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = server.tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
            succeeds(tls.do_handshake)
            self._hellos.append((outgoing.read(), (incoming, outgoing, tls)))
        self._connections = [
            socket.create_connection((HERE, server.port), WAIT, (ELSEWHERE, 0))
            for _ in range(STAMPEDE)
        ]

    def run(self) -> None:
        """Go on with each until it has its answer."""
        for connection, (hello, state) in zip(self._connections, self._hellos, strict=True):
            connection.sendall(hello)
            self._selector.register(connection, selectors.EVENT_READ, state)
        waiting = STAMPEDE
        while waiting:
            for key, _ in self._selector.select():
                connection: Any = key.fileobj
                incoming, outgoing, tls = key.data
                incoming.write(connection.recv(65536))
                if not succeeds(tls.do_handshake):
                    continue
                if outgoing.pending:
                    tls.write(REQUEST)
                    connection.sendall(outgoing.read())
                elif succeeds(lambda tls=tls: tls.read(65536)):
                    self._selector.unregister(connection)
                    waiting -= 1

    def close(self) -> None:
        self._selector.close()
        for connection in self._connections:
            connection.close()


def succeeds(step: Callable[[], object]) -> bool:
    try:
        step()
    except ssl.SSLWantReadError:
        return False
    return True


def bystander(server: Server, begun: Any, done: Any, kind: str, results: Any) -> None:
    """Ask again and again; put how long each answer took since the stampede has begun."""
    kept = server.connection()
    ask(kept)
    times = []
    while not done.is_set():
        start = time.perf_counter()
        if kind == "fresh":
            ask_on_fresh_one(server)
        else:
            ask(kept)
        if begun.is_set():
            times.append(time.perf_counter() - start)
        time.sleep(0.005)
    kept.close()
    results.put(times)


def stampede(server: Server, kind: str) -> None:
    begun, done = multiprocessing.Event(), multiprocessing.Event()
    results: Any = multiprocessing.Queue()
    clients = Stampede(server)
    other = multiprocessing.Process(target=bystander, args=(server, begun, done, kind, results))
    other.start()
    time.sleep(0.3)
    before, start = server.cpu(), time.perf_counter()
    begun.set()
    clients.run()
    seconds, cost = time.perf_counter() - start, server.cpu() - before
    done.set()
    times = results.get()
    other.join()
    print(
        f"{STAMPEDE} handshakes at once, with one request each: {seconds:.2f} s, "
        f"{cost:.2f} s of the server's processor\n"
        f"    meanwhile another client on {kind} connections: {len(times)} requests, "
        f"median {statistics.median(times) * 1e3:.1f} ms, worst {max(times) * 1e3:.1f} ms\n"
        f"    memory {server.memory()}"
    )
    clients.close()
    time.sleep(1)


def fresh_ones(server: Server) -> None:
    before, times = server.cpu(), []
    for _ in range(FRESH):
        start = time.perf_counter()
        ask_on_fresh_one(server)
        times.append(time.perf_counter() - start)
    cost = (server.cpu() - before) / FRESH
    print(
        f"a fresh connection with one request: median {statistics.median(times) * 1e3:.2f} ms, "
        f"{cost * 1e3:.2f} ms of the server's processor"
    )


def idle_ones(server: Server) -> None:
    connections = [server.connection() for _ in range(IDLE)]
    for connection in connections:
        ask(connection)
    print(f"memory with {IDLE} idle connections: {server.memory()}")
    for connection in connections:
        connection.close()
    time.sleep(1)


def unfinished_ones(server: Server) -> None:
    sent = HEAD + b"Content-Length: 200000\r\n\r\n" + bytes(UNFINISHED_BYTES)
    with ExitStack() as stack:
        for _ in range(UNFINISHED):
            plain = socket.create_connection((HERE, server.port), WAIT, (ELSEWHERE, 0))
            secure = server.tls.wrap_socket(plain, server_hostname="localhost")
            stack.enter_context(secure).sendall(sent)
        print(
            f"memory with {UNFINISHED} connections, {UNFINISHED_BYTES:,} bytes of an unfinished "
            f"body on each: {server.memory()}"
        )
    time.sleep(1)


def main() -> None:
    os.sched_setaffinity(0, {LAST_CORE})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = Server(Path(folder))
        stack.callback(server.close)
        ask_on_fresh_one(server)
        print(f"memory at rest: {server.memory()}")
        fresh_ones(server)
        idle_ones(server)
        stampede(server, "kept")
        stampede(server, "fresh")
        unfinished_ones(server)
        print(f"memory when all have gone: {server.memory()}")


if __name__ == "__main__":
    main()

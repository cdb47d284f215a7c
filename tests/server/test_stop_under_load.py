"""SIGTERM while requests come in: each is answered, or its connection is refused."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections import Counter

from tests.server.running import SECONDS, RunningServer, ask

CLIENTS, REQUESTS_A_SECOND = 4, 50


class Clients:
    """Clients that ask at a steady pace on kept connections, until they are refused.

    None sends a request a second time: Go's client does not do that with a POST, either.
    """

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.outcomes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_until_refused) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def answered(self) -> int:
        with self._lock:
            return self.outcomes["answered"]

    def _ask_until_refused(self) -> None:
        connection = self.server.connection()
        outcome = "answered"
        while outcome == "answered":
            outcome = self._ask(connection)
            with self._lock:
                self.outcomes[outcome] += 1
            time.sleep(1 / REQUESTS_A_SECOND)
        connection.close()

    def _ask(self, connection: http.client.HTTPSConnection) -> str:
        try:
            status = ask(connection, "/validate").status
            return "answered" if status == http.HTTPStatus.OK else f"HTTP {status}"
        except ConnectionRefusedError:
            return "refused"
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            return repr(error)


def test_a_stop_under_load_loses_no_request(start_server) -> None:
    server = start_server()
    clients = Clients(server)
    clients.start()
    while clients.answered() < REQUESTS_A_SECOND:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    clients.join()
    assert set(clients.outcomes) == {"answered", "refused"}
    assert clients.outcomes["refused"] == CLIENTS
    server.ended()
    assert server.process.returncode == 0

"""Certificates replaced again and again under load: no request fails."""

from __future__ import annotations

import shutil
import threading
import time
from functools import partial

import pytest

from tests.server.certificates import issued
from tests.server.running import ask, until

TIMES = 20
KEPT, REQUESTS_A_SECOND = 4, 50
FRESH_A_SECOND = 20
BETWEEN = {"kept": 40, "fresh": 4}
"""Answers between two replacements: a fifth of a second's."""


class Load:
    """Clients that keep asking; what goes wrong is kept."""

    def __init__(self, server):
        self.server = server
        self.failures: list[str] = []
        self.answered = {"kept": 0, "fresh": 0}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._kept) for _ in range(KEPT)]
        self._threads.append(threading.Thread(target=self._fresh))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def go_on(self):
        """Wait until as many more requests are answered as there are in a fifth of a second."""
        wanted = {kind: self.answered[kind] + more for kind, more in BETWEEN.items()}
        until(lambda: all(self.answered[kind] >= count for kind, count in wanted.items()))

    def _kept(self):
        connection = self.server.connection()
        self._ask_again_and_again("kept", REQUESTS_A_SECOND, lambda: ask(connection, "/validate"))
        connection.close()

    def _fresh(self):
        self._ask_again_and_again("fresh", FRESH_A_SECOND, lambda: self.server.ask("/validate"))

    def _ask_again_and_again(self, kind, rate, request):
        status: object
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / rate, time.monotonic() - 1)
            try:
                status = request().status
            except Exception as error:
                status = repr(error)
            with self._lock:
                self.answered[kind] += 1
                if status != 200:
                    self.failures.append(f"{kind}: {status}")


@pytest.fixture
def certificates(tmp_path):
    return [issued(tmp_path / f"pair-{number}", "localhost") for number in range(TIMES + 1)]


def test_twenty_replacements_at_200_requests_a_second_fail_none(
    start_server, tmp_path, certificates
):
    first, *others = certificates
    folder = tmp_path / "mounted"
    shutil.copytree(first.key.parent, folder)
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(b"".join(one.authority.read_bytes() for one in certificates))
    files = {"tls_cert": folder / "tls.crt", "tls_key": folder / "tls.key", "tls_ca": trusted}
    server = start_server(**files)
    with Load(server) as load:
        for number, new in enumerate(others):
            # The pair is torn while only one file is new; twice for so long that it is noticed.
            shutil.copy(new.key if number % 2 else new.certificate, folder)
            if number < 2:
                until(lambda: "the old one holds" in server.operations("/readyz?verbose").text)
            shutil.copy(new.certificate if number % 2 else new.key, folder)
            until(partial(is_served, server, new.pair().leaf.serial_number))
            load.go_on()

    assert load.failures == []
    assert all(load.answered[kind] >= TIMES * more for kind, more in BETWEEN.items())


def is_served(server, serial):
    """Whether a new connection gets the certificate of a serial number."""
    connection = server.connection()
    try:
        connection.connect()
        return int(connection.sock.getpeercert()["serialNumber"], 16) == serial
    finally:
        connection.close()

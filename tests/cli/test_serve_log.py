"""serve, where nobody reads what it says on stderr: it goes on answering."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from tests.cli.guard import SECONDS, Guard

REVIEWS = 1000
LONG = "\N{GRINNING FACE}" * 240
"""In a user's name it makes a line of 3 KB."""


@pytest.fixture
def pipe():
    """A pipe that holds a page."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.fixture
def guard(tmp_path, pipe):
    """A guard whose log nobody reads."""
    _, writing = pipe
    running = Guard(tmp_path, "--log-format", "json", stderr=writing)
    os.close(writing)
    yield running
    if running.process.poll() is None:
        running.kill()
    running.log.close()


def review(number: int) -> str:
    kind = {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstanceMigration"}
    request = {
        "uid": "1",
        "kind": kind,
        "operation": "CREATE",
        "namespace": "plant",
        "userInfo": {"username": f"{number} {LONG}"},
        "object": {"metadata": {"generateName": "m-"}, "spec": {"vmiName": "historian"}},
    }
    whole = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(whole)


def stall(guard: Guard) -> None:
    """Have more refusals logged than find room; each must be answered."""
    connection = http.client.HTTPSConnection(
        "localhost", guard.port, context=guard.tls, timeout=SECONDS
    )
    headers = {"Content-Type": "application/json"}
    for number in range(REVIEWS):
        connection.request("POST", "/validate?timeout=2s", review(number), headers)
        assert not json.loads(connection.getresponse().read())["response"]["allowed"]
    connection.close()


def lost(guard: Guard, kind: str = "other") -> int:
    name = f'migration_guard_log_lines_lost_total{{kind="{kind}"}} '
    [value] = re.findall(f"^{re.escape(name)}(.*)$", guard.ops("/metrics"), re.M)
    return int(float(value))


def test_reviews_are_answered_while_nobody_reads_the_log_and_the_loss_is_told(guard, pipe) -> None:
    stall(guard)
    missing = lost(guard)
    assert missing > 0

    with open(pipe[0], closefd=False, encoding="utf-8") as log:
        assert "reviews on" in log.readline()
        for number in range(REVIEWS - missing):
            assert json.loads(log.readline())["user"].split()[0] == str(number)
        assert f"lost lines of the log: {missing};" in log.readline()
        guard.refused("anna")
        assert json.loads(log.readline())["user"] == "anna"
    guard.stop()


def test_a_stop_does_not_wait_for_a_log_that_nobody_reads(guard) -> None:
    stall(guard)
    guard.stop()


def test_a_worker_that_dies_is_replaced_while_nobody_reads_the_log(guard) -> None:
    stall(guard)
    pid = guard.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    [worker] = map(int, children.read_text().split())
    os.kill(worker, signal.SIGKILL)
    guard.until(lambda: children.read_text().split() not in ([], [str(worker)]))

    guard.refused("anna")
    assert lost(guard) == 0
    guard.stop()


def test_what_was_logged_last_is_written_at_a_stop(guard, pipe) -> None:
    found: list[str] = []

    def read() -> None:
        with open(pipe[0], closefd=False, encoding="utf-8") as log:
            found.extend(log)

    reader = threading.Thread(target=read)
    reader.start()
    decision = guard.refused("anna")
    guard.stop()
    reader.join(SECONDS)
    assert json.loads(found[-1])["decision"] == decision

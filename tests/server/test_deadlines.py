"""A reply always leaves before the API server gives up, and says so where it is blind."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from tests.server.running import JSON, ask, measured, until
from webhook.serving.deadlines import InvalidTimeout, budget_of
from webhook.serving.protocol import LEAST_BODY_SECONDS
from webhook.serving.reviewing import LATE

BUDGET = 9.0
"""Seconds, where the request says nothing."""


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        (b"", BUDGET),
        (b"timeout=2s", 1),
        (b"timeout=10s", 9),
        (b"timeout=1s", 0.5),
        (b"timeout=1500ms", 0.75),
        (b"timeout=1m30s", 29),
        (b"timeout=1h", 29),
        (b"timeout=%2B2.5s", 1.5),
        (b"timeout=2000000%C2%B5s", 1),
        (b"timeout=0", BUDGET),
        (b"timeout=0s", BUDGET),
        (b"dryRun=All", BUDGET),
        (b"dryRun=All&timeout=3s", 2),
    ],
)
def test_the_budget_is_the_timeout_less_what_the_api_server_may_have_rounded_up(query, seconds):
    assert budget_of(query) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "2", "s", "2 s", "-2s", "2S", "1e3s", "2s;", "inf", "٢s", "2sec", "1" * 50 + "s"],
)
def test_what_is_no_duration_is_an_error(text):
    with pytest.raises(InvalidTimeout, match="2s or 1m30s"):
        budget_of(f"timeout={text}".encode())


def test_two_timeouts_are_an_error():
    with pytest.raises(InvalidTimeout):
        budget_of(b"timeout=2s&timeout=3s")


def test_a_request_with_a_broken_timeout_is_told_so(server):
    answer = server.ask("/validate?timeout=soon")

    assert answer.status == 400
    assert answer.text == "timeout: one duration such as 2s or 1m30s is wanted\n"


def misses(server, awaited):
    lines = server.operations("/metrics").text.splitlines()
    name = f'migration_guard_deadline_misses_total{{awaited="{awaited}"}} '
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize(("timeout", "before"), [("1s", 1), ("2s", 2)])
def test_a_body_that_stops_is_answered_before_the_timeout(start_server, timeout, before):
    server = start_server()
    connection = server.connection()
    connection.putrequest("POST", f"/validate?timeout={timeout}")
    for name, value in {**JSON, "Content-Length": "100"}.items():
        connection.putheader(name, value)
    began = time.monotonic()
    connection.endheaders(b"half of it")
    answer = connection.getresponse()

    assert time.monotonic() - began < before
    assert (answer.status, answer.headers["Connection"]) == (408, "close")
    assert answer.read() == b"the body did not come within the request's timeout\n"
    assert misses(server, "body") == 1
    connection.close()


def test_a_reply_waits_until_its_decision_is_kept(server, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        review = other.submit(server.ask, "/validate", b"keep " + str(pipe).encode())
        with pipe.open("wb"):  # returns once the keeper has opened its end
            assert server.ask("/validate").status == 200
            assert not review.done()

        assert review.result().status == 200
    assert misses(server, "record") == 0


def test_a_decision_that_is_not_kept_in_time_is_answered_all_the_same(start_server, tmp_path):
    server = start_server()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        body = b"keep " + str(pipe).encode()
        review = other.submit(server.ask, "/validate?timeout=1s", body)
        with pipe.open("wb"):
            answer = review.result()

    assert (answer.status, json.loads(answer.body)["late"]) == (200, "")
    assert misses(server, "record") == 1


def test_a_decision_that_cannot_be_kept_is_answered_and_the_failure_is_logged(start_server):
    server = start_server()

    assert server.ask("/validate", b"cannot keep").status == 200
    logged = json.loads(server.stop())
    assert (logged["message"], logged["error"]) == ("a decision could not be kept", "OSError")


def test_what_waits_behind_another_for_too_long_is_decided_as_late(start_server, tmp_path):
    server = start_server()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = b"wait " + str(pipe).encode()
    head = (
        "POST %s HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    connection = server.connection()
    connection.connect()
    connection.sock.sendall(
        (head % ("/validate", len(first))).encode()
        + first
        + (head % ("/validate?timeout=1s", 2)).encode()
        + b"{}"
    )
    with pipe.open("wb"):
        time.sleep(budget_of(b"timeout=1s"))
    said = b""
    while said.count(b'"late"') < 2:
        said += connection.sock.recv(65536)
    connection.close()

    assert b'"late": ""' in said
    assert b'"late": "the time that the API server allows for an answer was over"' in said
    assert misses(server, "decision") == 1


@contextmanager
def held_up(server, tmp_path, timeout="30s"):
    """Have a decision hold up the event loop until the block ends; yield its answer to come."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with closing(server.connection()) as connection, ThreadPoolExecutor(1) as other:
        # Kept: the first request of a connection may be decided at another point of the loop.
        ask(connection, "/validate")
        body = b"wait " + str(pipe).encode()
        answer = other.submit(ask, connection, f"/validate?timeout={timeout}", body)
        with pipe.open("wb"):  # returns once the decision has begun
            yield answer


def said_late(connection):
    return json.loads(connection.getresponse().read())["late"]


def test_what_waits_unread_behind_a_long_decision_is_decided_as_late(start_server, tmp_path):
    server = start_server()
    kept, patient = server.connection(), server.connection()
    for connection in (kept, patient):
        assert ask(connection, "/validate").status == 200
    with held_up(server, tmp_path):
        kept.request("POST", "/validate?timeout=1s", b"{}", JSON)
        patient.request("POST", "/validate?timeout=30s", b"{}", JSON)
        time.sleep(budget_of(b"timeout=1s") + 0.1)

    assert said_late(kept) == LATE
    assert said_late(patient) == ""
    assert misses(server, "decision") == 1
    # The time it waited is over: the next on the same connection is not late.
    assert json.loads(ask(kept, "/validate?timeout=1s").body)["late"] == ""
    kept.close()
    patient.close()


def test_a_body_that_waits_unread_behind_a_long_decision_is_decided_as_late(start_server, tmp_path):
    server = start_server()
    connection = server.connection()
    connection.putrequest("POST", "/validate?timeout=3s")
    for name, value in {**JSON, "Content-Length": "2"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    until(lambda: measured(server, "migration_guard_reviews_in_flight") == 1)
    with held_up(server, tmp_path):
        connection.send(b"{}")
        time.sleep(budget_of(b"timeout=3s") + 0.1)

    assert said_late(connection) == LATE
    assert (misses(server, "body"), misses(server, "decision")) == (0, 1)
    connection.close()


def test_a_connection_that_waits_behind_a_long_decision_makes_its_request_late(
    start_server, tmp_path
):
    server = start_server()
    with ThreadPoolExecutor(1) as other:
        with held_up(server, tmp_path):
            fresh = other.submit(server.ask, "/validate?timeout=1s")
            time.sleep(budget_of(b"timeout=1s") + 0.5)

        assert json.loads(fresh.result().body)["late"] == LATE
    assert misses(server, "decision") == 1


def test_the_body_of_a_request_that_is_late_with_its_head_may_come_a_moment_later(
    start_server, tmp_path
):
    server = start_server()

    def ask_in_two_parts():
        connection = server.connection()
        connection.putrequest("POST", "/validate?timeout=1s")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "2")
        connection.endheaders()
        time.sleep(LEAST_BODY_SECONDS / 4)
        connection.send(b"{}")
        try:
            return connection.getresponse().read()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        with held_up(server, tmp_path):
            fresh = other.submit(ask_in_two_parts)
            time.sleep(budget_of(b"timeout=1s") + 0.5)

        assert json.loads(fresh.result())["late"] == LATE
    assert (misses(server, "body"), misses(server, "decision")) == (0, 1)


def test_a_client_that_gave_up_while_it_waited_unread_is_counted(start_server, tmp_path):
    server = start_server()
    connection = server.connection()
    assert ask(connection, "/validate").status == 200
    with held_up(server, tmp_path):
        connection.request("POST", "/validate?timeout=30s", b"{}", JSON)
        connection.close()
        time.sleep(0.2)

    until(lambda: misses(server, "decision") == 1)


def test_a_decision_that_takes_longer_than_its_reply_may_is_counted(start_server, tmp_path):
    server = start_server()
    with held_up(server, tmp_path, "1s") as answer:
        time.sleep(budget_of(b"timeout=1s") + 0.1)

    assert json.loads(answer.result().body)["late"] == ""
    assert misses(server, "decision") == 1
    assert misses(server, "record") == 0

"""Requests that do not wait for their turn, answers that are not read, permission to send."""

from __future__ import annotations

import http.client
import json
import os
import time
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.server.attackers import HEAD, REVIEW, read_to_end, request, secure
from tests.server.running import SECONDS, Answer, RunningServer, measured, until

OTHER = HEAD.replace(b"/validate", b"/other")
EXPECTING = HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"


@pytest.fixture
def connection(server):
    with closing(secure(server)) as opened:
        yield opened


@contextmanager
def kept_back(tmp_path):
    """Yield a request whose decision is kept only when the block ends, and what lets it end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    yield request(b"keep " + str(pipe).encode()), lambda: pipe.open("wb")


def answer(connection):
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return Answer(response)


def read_lengths(connection, count):
    """Return the ``length`` of each of some answers, in their order."""
    said = b""
    while said.count(b"HTTP/1.1 200 ") < count or not said.endswith(b"}"):
        part = connection.recv(65536)
        assert part, said
        said += part
    bodies = [one.partition(b"\r\n\r\n")[2] for one in said.split(b"HTTP/1.1 200 OK")[1:]]
    return [json.loads(body)["length"] for body in bodies]


def test_what_comes_behind_a_decision_that_is_being_kept_waits_for_it(server, connection, tmp_path):
    with kept_back(tmp_path) as (first, release):
        connection.sendall(first + request(b"a") + request(b"bb"))
        with release():
            connection.sendall(request(b"ccc"))
            assert server.ask("/validate").status == 200
            connection.setblocking(False)
            with pytest.raises(OSError, match="did not complete"):
                connection.recv(1)
        connection.settimeout(SECONDS)

        length = len(first.partition(b"\r\n\r\n")[2])
        assert read_lengths(connection, 4) == [length, 1, 2, 3]


def test_a_broken_request_behind_one_that_is_being_kept_ends_the_connection(connection, tmp_path):
    with kept_back(tmp_path) as (first, release):
        connection.sendall(first)
        with release():
            connection.sendall(b"\x00 nonsense\r\n\r\n")

            assert read_to_end(connection) == b""


def test_a_client_that_leaves_while_its_decision_is_kept_gives_its_room_back(
    start_server, tmp_path
):
    server = start_server(most_reviews=1)
    with kept_back(tmp_path) as (first, release):
        with closing(secure(server)) as leaving:
            leaving.sendall(first)
            held = release()
        assert server.ask("/validate").status == 503
        held.close()
        until(lambda: measured(server, "migration_guard_reviews_in_flight") == 0)

    assert server.ask("/validate").status == 200


def test_nothing_is_decided_while_the_answers_before_it_are_not_read(start_server):
    server = start_server()
    with closing(secure(server, room=4096)) as slow:
        slow.sendall(request(b"large 3000000") * 2 + REVIEW)
        answered = 'migration_guard_reviews_total{code="200",path="/validate"}'
        until(lambda: measured(server, answered) == 2)
        # Somebody else is served meanwhile.
        assert server.ask("/validate").status == 200
        assert measured(server, answered) == 3
        assert [len(answer(slow).body) for _ in range(2)] == [3_000_000] * 2
        assert answer(slow).status == 200
    assert measured(server, answered) == 4


def test_a_refused_request_whose_body_comes_later_leaves_the_connection_fit(connection):
    connection.sendall(OTHER + b"Content-Length: 9\r\n\r\n")
    assert answer(connection).status == 404
    connection.sendall(b"123456789" + REVIEW)

    assert answer(connection).status == 200


def test_what_breaks_off_the_body_of_a_refused_request_gets_no_second_answer(connection):
    connection.sendall(OTHER + b"Transfer-Encoding: chunked\r\n\r\n")
    assert answer(connection).status == 404
    connection.sendall(b"nonsense\r\n")

    assert read_to_end(connection) == b""


def test_the_response_that_is_the_last_is_not_followed_by_another(connection):
    connection.sendall(request(b"{}", b"Connection: close") + REVIEW)
    said = read_to_end(connection)

    assert said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in said


def test_a_client_that_waits_for_permission_gets_it_once_and_an_answer(connection):
    connection.sendall(EXPECTING)
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"{")
    connection.sendall(b"}" + REVIEW)

    assert read_lengths(connection, 2) == [2, 2]


def test_a_client_that_does_not_wait_for_permission_is_not_given_it(connection):
    connection.sendall(EXPECTING + b"{}")

    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_permission_behind_another_request_is_given_when_its_turn_comes(connection, tmp_path):
    with kept_back(tmp_path) as (first, release):
        connection.sendall(first + EXPECTING)
        with release():
            pass
        assert answer(connection).status == 200
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")

        assert answer(connection).status == 200


def test_http_1_0_knows_no_permission(connection):
    connection.sendall(EXPECTING.replace(b"/1.1", b"/1.0"))
    time.sleep(0.1)
    connection.sendall(b"{}")

    assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_permission_while_there_is_no_room_is_sent_away(
    start_server, tmp_path
):
    server = start_server(most_reviews=1)
    with kept_back(tmp_path) as (first, release), closing(secure(server)) as holding:
        holding.sendall(first)
        with release(), closing(secure(server)) as waiting:
            waiting.sendall(EXPECTING)
            refused = answer(waiting)

            assert (refused.status, refused.headers["Connection"]) == (503, "close")
            assert read_to_end(waiting) == b""


def test_a_response_says_when_it_was_made(server):
    said = parsedate_to_datetime(server.ask("/validate").headers["Date"])

    assert abs(said.timestamp() - time.time()) < SECONDS


def test_a_connection_that_is_idle_for_too_long_is_closed_in_good_order(start_server):
    server = start_server(idle_seconds=0.3)
    with closing(secure(server)) as idle:
        idle.sendall(REVIEW)
        assert answer(idle).status == 200

        # Not by a reset, after which what was sent before might be lost.
        assert idle.recv(65536) == b""
    until(lambda: measured(server, 'migration_guard_connections_closed_total{how="idle"}') == 1)


def test_a_body_in_the_smallest_chunks_takes_no_more_memory_than_another(start_server):
    server = start_server()
    small = b"2\r\nxx\r\n" * 1_000_000
    with closing(secure(server)) as connection:
        before = most_memory(server)
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + small + b"0\r\n\r\n")

        assert read_lengths(connection, 1) == [2_000_000]
    assert most_memory(server) - before < 24


def most_memory(server: RunningServer) -> float:
    """Return the most resident memory its worker has had, in MiB."""
    status = Path(f"/proc/{server.worker}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

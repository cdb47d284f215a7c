"""Clients that stop halfway, against a server that waits for them half a second only."""

from __future__ import annotations

import os
import signal
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.server.attackers import HEAD, REVIEW, plain, read_to_end, request, secure
from tests.server.running import JSON, SECONDS, RunningServer, ask, measured, until

SMALL_ROOM = 4096
"""Bytes that a client's system takes in for it, about."""


@pytest.fixture(scope="module")
def hurried(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("server"), stall_seconds=0.5)
    yield server
    server.close()


@pytest.mark.parametrize("sent", [b"", b"\x16"], ids=["silent", "one byte"])
def test_a_handshake_that_stops_is_ended(hurried, sent):
    with plain(hurried) as connection:
        connection.sendall(sent)

        assert read_to_end(connection) == b""


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST /vali", HEAD + b"Content-Le", HEAD + b"Content-Length: 100\r\n\r\nhalf"],
    ids=["silent", "blank line", "half a line", "half the headers", "half the body"],
)
def test_a_request_that_stops_is_ended(hurried, sent):
    with secure(hurried) as connection:
        connection.sendall(sent)

        assert read_to_end(connection) == b""


@pytest.mark.parametrize("more", [b"POST /vali", HEAD + b"Content-Length: 9\r\n\r\n{"])
def test_a_second_request_that_stops_is_ended_after_the_first_was_answered(hurried, more):
    with secure(hurried) as connection:
        connection.sendall(REVIEW + more)

        assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def test_a_blank_line_does_not_keep_an_idle_connection_for_ever(hurried):
    with secure(hurried) as connection:
        connection.sendall(REVIEW)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        read_to_end(connection)


def test_a_refused_request_whose_body_never_comes_is_ended(hurried):
    with secure(hurried) as connection:
        connection.sendall(HEAD.replace(b"/validate", b"/other") + b"Content-Length: 9\r\n\r\n")

        assert read_to_end(connection).startswith(b"HTTP/1.1 404 ")


def test_an_idle_connection_is_kept_while_stalled_ones_are_ended(hurried):
    kept = hurried.connection()
    assert ask(kept, "/validate").status == 200
    before = kept.sock
    # Three limits and a sweep pass while the connection is idle.
    for _ in range(3):
        with ThreadPoolExecutor(20) as others, secure(hurried) as half:
            ended = [others.submit(_stall, hurried) for _ in range(20)]
            half.sendall(HEAD)
            assert read_to_end(half) == b""
            assert all(one.result() == b"" for one in ended)
        assert hurried.ask("/validate").status == 200

    assert ask(kept, "/validate").status == 200
    assert kept.sock is before
    kept.close()


def _stall(server):
    with plain(server) as connection:
        connection.sendall(b"\x16")
        return read_to_end(connection)


def unread_answers(server):
    return measured(server, 'migration_guard_connections_closed_total{how="unread-answer"}')


@pytest.mark.parametrize("requests", [1, 3], ids=["one answer", "answers that wait for the first"])
def test_a_client_that_reads_no_answer_is_ended(hurried, requests):
    before = unread_answers(hurried)
    with secure(hurried, room=SMALL_ROOM) as connection:
        connection.sendall(request(b"large 3000000") * requests)

        until(lambda: unread_answers(hurried) == before + 1)
        # Nor does the system go on offering it what it has not read.
        connection.settimeout(SECONDS)
        assert len(read_to_end(connection)) < 100_000


def test_a_client_that_reads_an_answer_byte_by_byte_is_ended(hurried):
    with secure(hurried, room=SMALL_ROOM) as connection:
        connection.sendall(request(b"large 3000000"))
        before = unread_answers(hurried)

        while unread_answers(hurried) == before:
            assert connection.recv(1)
            time.sleep(0.1)


def test_a_client_that_reads_slowly_but_all_of_it_is_kept(hurried):
    kept = hurried.connection()
    kept.connect()
    before = kept.sock
    for _ in range(4):
        kept.request("POST", "/validate", body=b"large 300000", headers=JSON)
        response = kept.getresponse()
        # Longer in all than the limit for one answer.
        time.sleep(0.2)
        assert len(response.read()) == 300_000
    assert ask(kept, "/validate").status == 200
    assert kept.sock is before
    kept.close()


def test_a_body_that_comes_byte_by_byte_is_ended(hurried):
    with secure(hurried) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")

        with suppress(ConnectionError, ssl.SSLError):
            for _ in range(100):
                connection.send(b"x")
                time.sleep(0.1)
            pytest.fail("it was still open after ten seconds")


def test_what_came_while_the_server_stood_still_is_read_before_anyone_is_ended(hurried):
    with secure(hurried) as connection:
        connection.sendall(REVIEW[:20])
        # The client's part of the handshake is over before the server's is.
        until(lambda: measured(hurried, 'migration_guard_connections{state="open"}') == 1)
        os.kill(hurried.worker, signal.SIGSTOP)
        try:
            connection.sendall(REVIEW[20:])
            time.sleep(2.5)
        finally:
            os.kill(hurried.worker, signal.SIGCONT)

        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")

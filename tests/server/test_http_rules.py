"""Requests that bend or break HTTP, over real TLS: each is answered, and nothing is smuggled."""

from __future__ import annotations

import http.client
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.server.running import SECONDS, Answer

HEAD = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
BODY = b"2\r\n{}\r\n0\r\n\r\n"
SIZED = HEAD + b"Content-Length: 2\r\n"
GOOD = SIZED + b"\r\n{}"
ASKING = SIZED + b"Expect: 100-continue\r\n\r\n"
LIMIT = 7 * 1024 * 1024


def coded(coding):
    return HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + BODY


def secure(server):
    plain = socket.create_connection(("127.0.0.1", server.port), SECONDS)
    return server.tls.wrap_socket(plain, server_hostname="localhost")


def answer(connection, method="POST"):
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response)


def ended(connection):
    """Tell whether the server closed the connection and said nothing more."""
    try:
        return connection.recv(65536) == b""
    except OSError:
        return True


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        pytest.param(status, data, id=name)
        for status, name, data in [
            (200, "two bytes", GOOD),
            (200, "chunked", coded(b"chunked")),
            (200, "chunks of one byte", CHUNKED + b"\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
            (200, "a chunk's extension", CHUNKED + b"\r\n2;a=b\r\n{}\r\n0\r\n\r\n"),
            (200, "permission to send", ASKING + b"{}"),
            (200, "absolute target", GOOD.replace(b"/validate", b"https://localhost/validate")),
            (404, "escaped nonsense", GOOD.replace(b"/validate", b"/%ff%zz")),
            (405, "HEAD", b"HEAD /validate HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            (415, "compressed", SIZED + b"Content-Encoding: gzip\r\n\r\n{}"),
            (415, "no type", SIZED.replace(b"application/json", b"") + b"\r\n{}"),
        ]
    ],
)
def test_what_keeps_to_the_rules_leaves_the_connection_fit_for_the_next(server, status, request_):
    with secure(server) as connection:
        connection.sendall(request_)
        assert answer(connection, request_.partition(b" ")[0].decode()).status == status
        connection.sendall(GOOD)
        assert answer(connection).status == 200


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        pytest.param(status, data, id=name)
        for status, name, data in [
            (200, "HTTP/1.0", GOOD.replace(b"/1.1", b"/1.0")),
            (400, "no HTTP", b"\x00\x01garbage\r\n\r\n"),
            (400, "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            (505, "HTTP/2.0 by name", GOOD.replace(b"/1.1", b"/2.0")),
            (400, "no Host", GOOD.replace(b"Host: localhost\r\n", b"")),
            (400, "two Hosts", SIZED + b"Host: other\r\n\r\n{}"),
            (400, "two types", SIZED + b"Content-Type: text/plain\r\n\r\n{}"),
            (400, "length and chunks", CHUNKED + b"Content-Length: 2\r\n\r\n" + BODY),
            (400, "chunks and length", SIZED + b"Transfer-Encoding: chunked\r\n\r\n" + BODY),
            (400, "the same length twice", SIZED + b"Content-Length: 2\r\n\r\n{}"),
            (400, "two lengths", SIZED + b"Content-Length: 3\r\n\r\n{}"),
            (400, "a list of lengths", HEAD + b"Content-Length: 2, 2\r\n\r\n{}"),
            (400, "a length with a sign", HEAD + b"Content-Length: +2\r\n\r\n{}"),
            (400, "a negative length", HEAD + b"Content-Length: -2\r\n\r\n{}"),
            (400, "a length of 30 digits", HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}"),
            (400, "no length", HEAD + b"Content-Length: \r\n\r\n{}"),
            (
                501,
                "gzip, then chunks",
                coded(b"gzip, chunked"),
            ),
            (
                400,
                "chunks, then identity",
                coded(b"chunked, identity"),
            ),
            (400, "nearly chunked", coded(b"xchunked")),
            (400, "chunked twice", CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n" + BODY),
            (400, "a blank before the colon", CHUNKED.replace(b"ing:", b"ing :") + b"\r\n" + BODY),
            (400, "chunks in HTTP/1.0", coded(b"chunked").replace(b"/1.1", b"/1.0")),
            (400, "a chunk of no size", CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n"),
            (400, "a chunk of 20 digits", CHUNKED + b"\r\n" + b"f" * 20 + b"\r\n{}\r\n"),
            (
                400,
                "a length in the trailer",
                coded(b"chunked")[:-2] + b"Content-Length: 5\r\n\r\n",
            ),
            (400, "bare line feeds", GOOD.replace(b"\r\n", b"\n")),
            (400, "a folded header", HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"),
            (400, "a bare carriage return", HEAD + b"X: a\rContent-Length: 2\r\n\r\n{}"),
            (400, "a zero byte", SIZED + b"X: a\0b\r\n\r\n{}"),
            (400, "no such method", GOOD.replace(b"POST", b"FROB")),
            (400, "another protocol", SIZED + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{}"),
            (400, "a web socket", SIZED + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{}"),
            (417, "another expectation", SIZED + b"Expect: 200-maybe\r\n\r\n{}"),
            (
                404,
                "permission for a wrong path",
                ASKING.replace(b"/validate", b"/x"),
            ),
            (413, "a length too large", HEAD + b"Content-Length: %d\r\n\r\n{}" % (LIMIT + 1)),
        ]
    ],
)
def test_what_does_not_ends_the_connection_with_its_answer(server, status, request_):
    with secure(server) as connection:
        # The second request must not be answered: nobody can say where the first one ends.
        connection.sendall(request_)
        response = answer(connection)

        assert (response.status, response.headers["Connection"]) == (status, "close")
        assert response.body.count(b"\n") <= 1
        assert ended(connection)


def test_what_follows_a_body_whose_length_is_too_small_is_not_taken_for_its_answer(server):
    with secure(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 1\r\n\r\n{}")

        assert ended(connection)


def test_none_of_it_fills_the_log(start_server):
    server = start_server()
    for request_ in (b"garbage\r\n\r\n", SIZED + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{}"):
        with secure(server) as connection:
            connection.sendall(request_)
            assert answer(connection).status == 400

    assert server.stop() == ""


def test_two_requests_in_one_packet_are_answered_in_their_order(server):
    first, second = GOOD.replace(b"/validate", b"/mutate"), GOOD
    with secure(server) as connection:
        connection.sendall(first + second)
        said = b""
        while said.count(b'"late"') < 2:
            said += connection.recv(65536)

    assert said.index(b'"path": "/mutate"') < said.index(b'"path": "/validate"')


def test_a_client_that_sends_on_after_413_can_read_the_answer(server):
    with secure(server) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1))
        # More than the buffers of both systems hold: it must be read for this to return.
        connection.sendall(b"x" * (LIMIT + 1))

        assert answer(connection).status == 413
        assert ended(connection)


def test_a_client_that_sends_on_after_413_for_ever_is_cut_off(server):
    with secure(server) as connection:
        connection.sendall(CHUNKED + b"\r\n")
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with suppress(OSError):
            for _ in range(10_000):
                connection.sendall(chunk)
            pytest.fail("ten gigabytes were taken")


def test_a_trailer_without_end_is_cut_off_with_400(server):
    with secure(server) as connection:
        connection.sendall(CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: ")
        # The limit, and what one piece read may hold beyond it.
        connection.sendall(b"x" * 64 * 1024 * 2)
        response = answer(connection)

        assert (response.status, response.headers["Connection"]) == (400, "close")
        assert ended(connection)


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_more_reviews_than_there_is_room_for_are_sent_away_at_once(start_server, pipe):
    server = start_server(most_reviews=1)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(server.ask, "/validate", b"keep " + str(pipe).encode())
        with pipe.open("wb"):  # returns once the decision waits to be kept
            sent_away = server.ask("/validate")
            in_flight = server.operations("/metrics").text

        assert first.result().status == 200
    assert (sent_away.status, sent_away.text) == (503, "too many reviews at a time; try again\n")
    assert "migration_guard_reviews_in_flight 1.0" in in_flight.splitlines()
    assert server.ask("/validate").status == 200
    lines = server.operations("/metrics").text.splitlines()
    assert 'migration_guard_reviews_shed_total{reason="too-many"} 1.0' in lines
    assert 'migration_guard_reviews_total{code="503",path="/validate"} 1.0' in lines
    assert "migration_guard_reviews_in_flight 0.0" in lines


def wait_for(server, line):
    end = time.monotonic() + SECONDS
    while line not in server.operations("/metrics").text.splitlines():
        assert time.monotonic() < end, line


def test_bodies_that_do_not_come_keep_nobody_out(start_server):
    server = start_server(most_reviews=2)
    stalled = [secure(server) for _ in range(5)]
    for number, connection in enumerate(stalled, 1):
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
        # One after the other, so that it is known which has been awaited longest.
        wait_for(server, f"migration_guard_reviews_in_flight {min(number, 2)}.0")
        shed = f'migration_guard_reviews_shed_total{{reason="body-slow"}} {max(number - 2, 0)}.0'
        wait_for(server, shed)
    sent_away = [answer(connection) for connection in stalled[:3]]

    assert [response.status for response in sent_away] == [503] * 3
    assert sent_away[0].body == b"the body came too slowly beside so many others\n"
    assert all(ended(connection) for connection in stalled[:3])
    for _ in range(5):
        assert server.ask("/validate").status == 200
    for connection in stalled:
        connection.close()

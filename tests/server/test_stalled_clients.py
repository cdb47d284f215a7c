"""Clients that stop halfway, against a server that waits for them half a second only."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server.running import SECONDS, RunningServer, ask

HEAD = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REVIEW = HEAD + b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def hurried(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("server"), stall_seconds=0.5)
    yield server
    server.close()


def plain(server):
    return socket.create_connection(("127.0.0.1", server.port), SECONDS)


def secure(server):
    return server.tls.wrap_socket(plain(server), server_hostname="localhost")


def read_to_end(connection):
    """Return what still comes before the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except (ConnectionResetError, ssl.SSLEOFError):
        pass
    return b"".join(parts)


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

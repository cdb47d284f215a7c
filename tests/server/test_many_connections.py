"""More connections than the server keeps, against one that keeps few."""

from __future__ import annotations

import os
import resource
import ssl
from contextlib import ExitStack, closing, suppress

import pytest

from tests.server.attackers import (
    HEAD,
    REVIEW,
    plain,
    read_to_end,
    request,
    secure,
)
from tests.server.running import ask, measured, until


@pytest.fixture
def small(start_server):
    return start_server(most_connections=3)


@pytest.fixture
def held():
    """Keeps connections open until the end of the test."""
    with ExitStack() as stack:
        yield stack.enter_context


def idle(server):
    """Return a connection on which a request has been answered."""
    connection = server.connection()
    assert ask(connection, "/validate").status == 200
    return connection, connection.sock


def assert_kept(connection, before):
    assert ask(connection, "/validate").status == 200
    assert connection.sock is before


def open_connections(server):
    return measured(server, 'migration_guard_connections{state="open"}')


def closed(server, how):
    return measured(server, f'migration_guard_connections_closed_total{{how="{how}"}}')


def test_the_connection_that_was_idle_longest_makes_room(small):
    connections = [idle(small) for _ in range(3)]
    first, (_, second), third = connections
    assert_kept(*first)
    assert small.ask("/validate").status == 200

    assert read_to_end(second) == b""
    assert_kept(*first)
    assert_kept(*third)
    assert closed(small, "shed-total") == 1
    for connection, _ in connections:
        connection.close()


@pytest.mark.parametrize("connect", [plain, secure], ids=["before TLS", "after the handshake"])
def test_connections_that_send_nothing_do_not_keep_others_out(small, held, connect):
    kept = idle(small)
    for _ in range(6):
        held(connect(small))

    assert small.ask("/validate").status == 200
    until(lambda: closed(small, "shed-total") == 5)
    # Who has sent a request before has more to lose than who never did.
    assert_kept(*kept)
    kept[0].close()


def test_a_peer_that_has_too_many_loses_its_own(start_server, held):
    server = start_server(most_connections_per_peer=2)
    kept = idle(server)
    silent = [held(secure(server, "127.0.0.2")) for _ in range(3)]

    assert read_to_end(silent[0]) == b""
    assert closed(server, "shed-peer") == 1
    assert_kept(*kept)
    kept[0].close()


def test_the_peer_that_has_most_makes_room_for_others(start_server, held):
    server = start_server(most_connections=6)
    kept = idle(server)
    others = [held(secure(server, "127.0.0.2")) for _ in range(4)]
    few = held(secure(server, "127.0.0.3"))
    newest = held(secure(server, "127.0.0.4"))

    assert read_to_end(others[0]) == b""
    for connection in (few, newest):
        connection.sendall(REVIEW)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert_kept(*kept)
    kept[0].close()


def test_a_review_in_flight_is_not_ended_for_others(start_server, held, tmp_path):
    server = start_server(most_connections=1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waiting = held(secure(server))
    waiting.sendall(request(b"keep " + str(pipe).encode()))
    with pipe.open("wb"):  # returns once the review has opened its end
        assert read_to_end(held(plain(server, "127.0.0.2"))) == b""
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert closed(server, "shed-total") == 1


def test_a_server_out_of_file_descriptors_makes_room(start_server, held):
    server = start_server()
    kept = idle(server)
    in_use = len(os.listdir(f"/proc/{server.worker}/fd"))
    resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (in_use + 10, in_use + 10))
    silent = [held(plain(server, "127.0.0.2")) for _ in range(40)]

    assert read_to_end(silent[0]) == b""
    assert_kept(*kept)
    kept[0].close()


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"a: b\r\n" * 100,
        HEAD + b"a: " + b"b" * 400_000,
        b"POST /" + b"a" * 400_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 100,
        b"\x00\x01 nonsense\r\n\r\n",
    ],
    ids=["many headers", "large header", "large path", "many trailers", "not HTTP"],
)
def test_what_is_too_much_of_a_request_or_none_is_refused(server, held, sent):
    connection = held(secure(server))
    connection.sendall(sent)

    answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""


def test_a_broken_request_is_not_answered_ahead_of_the_one_before_it(server, held):
    connection = held(secure(server))
    connection.sendall(REVIEW + b"\x00\x01 nonsense\r\n\r\n")

    assert not read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_a_few_requests_in_a_row_are_answered_in_their_order(server, held):
    connection = held(secure(server))
    connection.sendall(b"".join(request(b"x" * size) for size in range(10)))

    answers = b""
    while answers.count(b"HTTP/1.1 200 ") < 10 or not answers.endswith(b"}"):
        answers += connection.recv(65536)
    found = [answers.index(b'"length": %d,' % size) for size in range(10)]
    assert found == sorted(found)


def test_thousands_of_requests_in_a_row_do_not_fill_the_memory(server):
    def memory():
        with open(f"/proc/{server.worker}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    assert server.ask("/validate").status == 200
    before, refused = memory(), closed(server, "refused")
    for _ in range(5):
        with closing(secure(server)) as connection:
            # In one piece, as far as the server's buffers go.
            with suppress(ConnectionError, ssl.SSLError):
                connection.sendall(REVIEW * 3_000)
            read_to_end(connection)
    until(lambda: closed(server, "refused") == refused + 5)
    assert memory() - before < 16 * 1024

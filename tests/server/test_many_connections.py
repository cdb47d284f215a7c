"""More connections than the server keeps, against one that keeps three."""

from __future__ import annotations

import pytest

from tests.server.running import ask


@pytest.fixture
def small(start_server):
    return start_server(most_connections=3)


def test_the_connection_that_was_idle_longest_makes_room(small):
    connections = [small.connection() for _ in range(3)]
    for connection in (*connections, connections[0]):
        assert ask(connection, "/validate").status == 200
    first, second, third = (connection.sock for connection in connections)
    assert small.ask("/validate").status == 200

    assert second.recv(1) == b""
    for connection, before in ((connections[0], first), (connections[2], third)):
        assert ask(connection, "/validate").status == 200
        assert connection.sock is before
    for connection in connections:
        connection.close()


def test_connections_that_send_nothing_do_not_keep_others_out(small):
    silent = [small.connection() for _ in range(6)]
    for connection in silent:
        connection.connect()

    assert small.ask("/validate").status == 200
    assert silent[0].sock.recv(1) == b""
    for connection in silent:
        connection.close()

"""Attacks from other addresses, while an honest client on 127.0.0.1 is served as ever."""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.server.attackers import HEAD, REVIEW, Crowd, Stampede, plain, request, secure
from tests.server.honest import honest_client
from tests.server.running import RunningServer, measured, until

CROWD = 64
"""Connections of each kind of attack."""

SMALL_ROOM = 4096


def assert_unharmed(findings):
    assert findings.failures == []
    assert not findings.reconnected
    assert len(findings.kept) >= 10
    assert max(findings.kept) < 1 + findings.starved
    assert max(findings.fresh) < 2 + findings.starved


def closed(server, how):
    return measured(server, f'migration_guard_connections_closed_total{{how="{how}"}}')


def send_a_byte(connection):
    connection.send(b"x")


def attack(server, crowd):
    """Hold a crowd of every kind, each kind from an address of its own."""
    kinds = {
        "127.0.0.2": (plain, b"", None),
        "127.0.0.3": (plain, b"\x16", None),
        "127.0.0.4": (secure, b"", None),
        "127.0.0.5": (secure, HEAD + b"Content-Le", None),
        "127.0.0.6": (secure, HEAD + b"Content-Length: 100\r\n\r\nhalf", None),
        "127.0.0.7": (secure, HEAD + b"Content-Length: 100\r\n\r\n", send_a_byte),
        "127.0.0.8": (secure, request(b"{}", b"Connection: close"), None),
    }
    for address, (connect, sent, each_second) in kinds.items():
        for _ in range(CROWD):
            connection = connect(server, address)
            connection.sendall(sent)
            crowd.hold(connection, each_second)


def read_nothing(server):
    """Ask for large answers; return connections that take in next to nothing of them."""
    connections = []
    for _ in range(CROWD):
        connection = secure(server, "127.0.0.9", SMALL_ROOM)
        connection.sendall(request(b"large 3000000") * 2)
        connections.append(connection)
    return connections


def test_every_stall_ends_within_twenty_seconds_and_harms_nobody(start_server):
    server = start_server()
    with closing(Crowd()) as crowd:
        with honest_client(server) as findings:
            readers = read_nothing(server)
            began = time.monotonic()
            attack(server, crowd)

            assert crowd.watch(20) == 0
            # They cannot tell themselves: with no room left they are not even told of the end.
            until(lambda: closed(server, "unread-answer") == CROWD)
            assert time.monotonic() - began < 20
        for reader in readers:
            reader.close()
    assert max(crowd.lived) < 20
    assert_unharmed(findings)
    assert closed(server, "stalled-handshake") == 2 * CROWD
    assert closed(server, "stalled-request") == 4 * CROWD
    assert closed(server, "shed-total") == closed(server, "shed-peer") == 0


@pytest.fixture(scope="module")
def hurried(tmp_path_factory):
    server = RunningServer(tmp_path_factory.mktemp("server"), stall_seconds=2)
    yield server
    server.close()


def test_1100_connections_of_one_byte_use_up_the_room_of_their_own_address_only(hurried):
    before = closed(hurried, "shed-peer")
    with closing(Crowd()) as crowd, honest_client(hurried) as findings:
        for _ in range(1_100):
            connection = plain(hurried, "127.0.0.2")
            connection.sendall(b"\x16")
            crowd.hold(connection)
        until(lambda: closed(hurried, "shed-peer") - before >= 600)
        assert crowd.watch(20) == 0
    assert_unharmed(findings)


def test_1000_handshakes_at_once_delay_nobody_else(hurried):
    stampede = Stampede(hurried, "127.0.0.2", 1_000)
    with closing(stampede), honest_client(hurried) as findings:
        stampede.begin()
        until(lambda: measured(hurried, 'migration_guard_connections{state="handshake"}') == 0)
    assert findings.failures == []
    assert max(findings.kept) < 1 + findings.starved


def test_large_bodies_that_stop_halfway_do_not_fill_the_memory(start_server):
    server = start_server(stall_seconds=2)
    with closing(Crowd()) as crowd, honest_client(server) as findings:
        for _ in range(100):
            connection = secure(server, "127.0.0.2")
            # Some are ended while they still send.
            with suppress(ConnectionError, ssl.SSLError):
                connection.sendall(request(bytes(7_000_000))[:-1])
            crowd.hold(connection)
        assert crowd.watch(20) == 0
    assert closed(server, "shed-total") > 80
    assert most_memory(server.worker) < 256
    assert_unharmed(findings)


def most_memory(process):
    """Return the most resident memory a process has had, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_clients_that_come_again_and_again_delay_nobody_else(hurried):
    stop = threading.Event()

    def come_again():
        while not stop.is_set():
            connection = plain(hurried, "127.0.0.2")
            connection.sendall(b"\x16\x03\x01")
            connection.close()

    attackers = [threading.Thread(target=come_again) for _ in range(4)]
    with honest_client(hurried) as findings:
        for attacker in attackers:
            attacker.start()
        try:
            stop.wait(2)
        finally:
            stop.set()
            for attacker in attackers:
                attacker.join()
    assert_unharmed(findings)


def test_a_lone_client_is_served_when_a_crowd_of_addresses_has_used_up_all_room(start_server):
    server = start_server(most_connections=20, most_connections_per_peer=8)
    with closing(Crowd()) as crowd, honest_client(server) as findings:
        for _ in range(20):
            for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
                # Some are ended in their handshake already, for one of the lone client.
                with suppress(ConnectionError, ssl.SSLError):
                    connection = secure(server, address)
                    connection.sendall(REVIEW)
                    crowd.hold(connection)
        threading.Event().wait(1)
    assert closed(server, "shed-total") > 0
    assert_unharmed(findings)

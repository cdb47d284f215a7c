"""Clients of the operations port that mean harm: the kubelet's probes are answered all the same."""

from __future__ import annotations

import http.client
import os
import resource
from contextlib import ExitStack, closing, suppress

import pytest
import yaml

from tests.server.attackers import Crowd, plain, read_to_end
from tests.server.running import CHECKOUT, ask, measured, until
from webhook.serving.operations_server import (
    MOST_CONNECTIONS,
    MOST_CONNECTIONS_PER_PEER,
    STALL_SECONDS,
)

ATTACKER = "127.0.0.2"
HALF = b"GET /metrics HTTP/1.1\r\nHost: lo"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NOTICED = 5
"""How long after its time an end may come: once a second is looked, on a busy machine."""


class OperationsPort:
    """What attackers.py takes for a server."""

    def __init__(self, server):
        self.port = server.ops_port
        self.tls = server.tls


@pytest.fixture
def target(server):
    return OperationsPort(server)


@pytest.fixture
def crowd():
    held = Crowd()
    yield held
    held.close()


def probe_seconds():
    """Return how long the kubelet waits for each of its probes, by path."""
    file = CHECKOUT / "manifests" / "base" / "deployment.yaml"
    deployment = yaml.safe_load(file.read_text(encoding="utf-8"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    probes = [container["livenessProbe"], container["readinessProbe"]]
    return {probe["httpGet"]["path"]: probe["timeoutSeconds"] for probe in probes}


def assert_alive(target):
    for path, seconds in probe_seconds().items():
        # The kubelet opens a connection for each.
        kubelet = http.client.HTTPConnection("127.0.0.1", target.port, timeout=seconds)
        with closing(kubelet):
            assert ask(kubelet, path, None, "GET").status == 200


@pytest.mark.parametrize("number", [110, 300])
@pytest.mark.parametrize(
    "sent", [b"", HALF, METRICS, LARGE], ids=["silent", "half", "unread", "large"]
)
def test_connections_of_another_do_not_keep_the_probes_out(target, crowd, number, sent):
    for _ in range(number):
        connection = plain(target, ATTACKER, room=4096)
        crowd.hold(connection)
        # Some have been ended already.
        with suppress(ConnectionError):
            connection.sendall(sent)
        if len(crowd) % 50 == 0:
            assert_alive(target)
    for _ in range(5):
        assert_alive(target)


def test_probes_from_the_address_of_those_who_crowd_the_port_are_answered(target, crowd):
    for _ in range(2 * MOST_CONNECTIONS):
        crowd.hold(plain(target))
    assert_alive(target)


def test_many_addresses_together_do_not_keep_the_probes_out(target, crowd):
    for peer in range(10):
        for _ in range(MOST_CONNECTIONS_PER_PEER):
            crowd.hold(plain(target, f"127.0.0.{10 + peer}"))
    assert_alive(target)
    crowd.watch(0.5)
    assert len(crowd) <= MOST_CONNECTIONS


def test_probes_are_answered_where_there_is_no_file_descriptor_left(start_server, crowd):
    server = start_server()
    target = OperationsPort(server)
    assert_alive(target)
    in_use = len(os.listdir(f"/proc/{server.worker}/fd"))
    resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (in_use + 10, in_use + 10))
    for _ in range(40):
        crowd.hold(plain(target, ATTACKER))
    for _ in range(5):
        assert_alive(target)


def test_a_server_that_can_accept_nobody_goes_on_once_it_can(start_server):
    server = start_server()
    target = OperationsPort(server)
    assert_alive(target)
    usual = resource.prlimit(server.worker, resource.RLIMIT_NOFILE)
    # Fewer than it has: none is left for anybody.
    resource.prlimit(server.worker, resource.RLIMIT_NOFILE, (3, usual[1]))
    with closing(plain(target)) as kubelet:
        kubelet.sendall(METRICS)
        kubelet.settimeout(0.5)
        with pytest.raises(TimeoutError):
            kubelet.recv(1)
        resource.prlimit(server.worker, resource.RLIMIT_NOFILE, usual)
        kubelet.settimeout(NOTICED)
        assert kubelet.recv(9) == b"HTTP/1.1 "


def test_probes_wait_for_no_page_that_takes_its_time(start_server, crowd):
    target = OperationsPort(start_server())
    for _ in range(MOST_CONNECTIONS_PER_PEER):
        connection = plain(target, ATTACKER)
        connection.sendall(SLOW)
        crowd.hold(connection)
    assert_alive(target)


def test_a_client_that_stalls_is_ended_and_one_that_waits_is_answered(target, crowd):
    for sent in (b"", HALF, METRICS, LARGE):
        connection = plain(target, ATTACKER, room=4096)
        connection.sendall(sent)
        crowd.hold(connection)
    crowd.hold(plain(target, ATTACKER), lambda drip: drip.sendall(b"a"))
    with closing(plain(target)) as waiting:
        waiting.sendall(SLOW)
        assert crowd.watch(STALL_SECONDS + NOTICED) == 0
        assert read_to_end(waiting).endswith(b"done")


def test_whoever_asks_on_without_reading_is_ended(target):
    with closing(plain(target, ATTACKER)) as connection:
        connection.sendall(METRICS * 100)
        assert read_to_end(connection).count(b"HTTP/1.1 200") <= 1


def test_probes_are_answered_beside_more_than_a_thousand_reviewers(start_server):
    server = start_server(most_connections=1500, most_connections_per_peer=1500)
    with ExitStack() as held:
        for _ in range(1100):
            held.enter_context(plain(server))
        until(lambda: measured(server, 'migration_guard_connections{state="handshake"}') == 1100)
        assert_alive(OperationsPort(server))
        assert server.operations("/metrics").status == 200

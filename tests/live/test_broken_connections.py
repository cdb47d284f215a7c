"""An API server that goes away, falls silent or forgets: the facts are right again afterwards."""

from __future__ import annotations

import time

from tests.cluster.objects import node, vmi
from tests.live.following import listed, told


def test_an_api_server_that_is_restarted(server, follow):
    server.add(node("a"))
    followed = follow(server.kubeconfig)
    before = followed.synced()
    server.plane.apiserver.stop()
    followed.wait_for(lambda: "cannot be reached" in followed.state("nodes"))
    assert followed.live.snapshot().nodes.by_name == before.nodes.by_name
    assert followed.live.snapshot().stale == ()
    server.start_server()
    server.add(node("b"))
    server.remove(node("a"))
    found = followed.wait(lambda facts: set(facts.nodes.by_name) == {"b"})
    followed.wait_for(lambda: all("warning" not in str(k) for k in followed.live.kinds))
    assert told(found) == told(listed(server.kubeconfig))


def test_a_connection_that_is_cut_in_the_middle_of_a_watch(server, forwarder, follow, tmp_path):
    followed = follow(server.kubeconfig_through(forwarder.port, tmp_path))
    followed.synced()
    for number in range(20):
        server.add(vmi(f"vm-{number}", node_name="a"))
        if number % 5 == 2:
            forwarder.cut()
    found = followed.wait(lambda facts: len(facts.vmis) == 20)
    assert told(found) == told(listed(server.kubeconfig))


def test_a_watch_that_falls_silent_is_given_up(server, forwarder, follow, tmp_path):
    followed = follow(server.kubeconfig_through(forwarder.port, tmp_path), stale_after=12.0)
    followed.synced()
    forwarder.silence()
    server.add(node("unheard"))
    began = time.monotonic()
    found = followed.wait(lambda facts: "unheard" in facts.nodes.by_name)
    # The watch's own end, and the grace beyond it.
    assert time.monotonic() - began < 30
    assert told(found) == told(listed(server.kubeconfig))


def test_facts_without_a_sign_of_life_are_named_and_the_last_ones_kept(
    server, forwarder, follow, tmp_path
):
    server.add(node("a", {"kubevirt.io/schedulable": "true"}))
    followed = follow(server.kubeconfig_through(forwarder.port, tmp_path), stale_after=3.0)
    assert followed.synced().blind() == ""
    forwarder.refuse(True)
    found = followed.wait(lambda facts: "nodes" in facts.stale)
    assert "a" in found.nodes.by_name
    assert "facts are missing or too old" in found.blind()
    # It was ready once, and stays so.
    assert followed.live.synced
    forwarder.refuse(False)
    assert followed.wait(lambda facts: not facts.stale).blind() == ""


def test_a_kind_that_is_not_installed_does_not_grow_old(server, follow):
    followed = follow(server.kubeconfig, stale_after=3.0)
    followed.synced()
    assert followed.state("upgrades") == "not installed"
    upgrades = next(k for k in followed.live.kinds if k.resource.name == "upgrades")

    def heard() -> float:
        return time.monotonic() - upgrades.age

    for _ in range(3):
        last = heard()
        followed.wait_for(lambda last=last: heard() > last + 0.1 or followed.live.stale())
        assert followed.live.stale() == ()


def test_changes_that_the_api_server_has_forgotten_are_read_anew(
    server, forwarder, follow, tmp_path, monkeypatch
):
    server.add(node("a"))
    server.add(vmi("old", node_name="a"))
    followed = follow(server.kubeconfig_through(forwarder.port, tmp_path))
    followed.synced()
    forwarder.refuse(True)
    # While nobody listens, more changes than can be told afterwards.
    server.remove(node("a"))
    server.add(node("b"))
    server.remove(vmi("old"))
    server.add(vmi("new", node_name="b"))
    server.plane.compact()
    server.plane.restart_apiserver()
    statuses = []
    for kind in followed.live.kinds:

        def failed(error, told=kind.failed):
            statuses.append(error.status)
            told(error)

        monkeypatch.setattr(kind, "failed", failed)
    forwarder.refuse(False)
    found = followed.wait(
        lambda facts: set(facts.nodes.by_name) == {"b"} and set(facts.vmis) == {"default/new"}
    )
    assert 410 in statuses
    assert told(found) == told(listed(server.kubeconfig))


def test_an_api_server_that_cannot_be_reached_at_first_is_followed_once_it_can(
    server, forwarder, follow, tmp_path
):
    forwarder.refuse(True)
    followed = follow(server.kubeconfig_through(forwarder.port, tmp_path))
    followed.wait_for(lambda: "warning" in followed.state("nodes"))
    assert not followed.live.synced
    assert "nodes" in followed.live.snapshot().stale
    forwarder.refuse(False)
    followed.synced()

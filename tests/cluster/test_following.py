"""One kind of a live cluster: what becomes of its objects, and how fresh it counts as."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from tests.cluster.objects import launcher, migration, node, vmi
from webhook.cluster import sharing as sharing_module
from webhook.cluster.errors import RequestFailed
from webhook.cluster.facts import Facts
from webhook.cluster.following import FollowedKind
from webhook.cluster.resources import RESOURCES
from webhook.cluster.sharing import Sharing
from webhook.model.migration import LauncherPod

LABEL = "cpu-model.node.kubevirt.io/Penryn"
NOW = 1_800_000_000.0

SETTLING_SECONDS = 420.0


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Known:
    """Kinds that share facts and a clock."""

    facts: Facts = field(default_factory=Facts)
    clock: Clock = field(default_factory=Clock)
    changes: list[None] = field(default_factory=list)

    def kind(self, name: str) -> FollowedKind:
        resource = next(r for r in RESOURCES if r.name == name)
        return FollowedKind(
            resource,
            self.facts,
            Sharing(),
            threading.Lock(),
            lambda: self.changes.append(None),
            self.clock,
            self.clock,
            lambda: SETTLING_SECONDS,
        )


@pytest.fixture
def known() -> Known:
    return Known()


def test_a_heartbeat_that_changes_nothing_ends_here(known):
    nodes = known.kind("nodes")
    beating = node("a", {LABEL: "true"})
    nodes.put(beating)
    assert len(known.changes) == 1
    beating["metadata"]["annotations"] = {"kubevirt.io/heartbeat": "now"}
    beating["metadata"]["resourceVersion"] = "2"
    beating["status"]["conditions"][0]["lastHeartbeatTime"] = "now"
    nodes.put(beating)
    assert len(known.changes) == 1


def test_guest_information_that_changes_ends_here(known):
    vmis = known.kind("virtualmachineinstances")
    one = vmi("vm", node_name="a")
    vmis.put(one)
    one["status"]["guestOSInfo"] = {"name": "Debian"}
    vmis.put(one)
    assert len(known.changes) == 1


def test_migrations_and_pods_that_have_ended_are_dropped(known):
    migrations, pods = known.kind("virtualmachineinstancemigrations"), known.kind("pods")
    migrations.put(migration("m", uid="u", phase="Running"))
    pods.put(launcher("p", "u"))
    assert (migrations.count, pods.count) == (1, 1)
    migrations.put(migration("m", uid="u", phase="Failed"))
    pods.put(launcher("p", "u", phase="Succeeded"))
    assert (migrations.count, pods.count) == (0, 0)


def test_what_a_list_does_not_hold_is_gone(known):
    nodes = known.kind("nodes")
    for name in "abc":
        nodes.put(node(name))
    nodes.filled({"b"})
    assert set(known.facts.nodes) == {"b"}
    nodes.not_installed()
    assert not known.facts.nodes
    assert str(nodes) == "not installed"


def test_an_object_that_cannot_be_read_is_told_until_it_is_gone_or_sound(known):
    nodes = known.kind("nodes")
    nodes.put(node("a"))
    assert nodes.put(node("a", allocatable={"cpu": "many"})) == "a"
    assert not known.facts.nodes
    assert "1 left out; the first: a: status.allocatable.cpu" in str(nodes)
    nodes.put(node("a"))
    assert "left out" not in str(nodes)
    nodes.put(node("b", allocatable={"cpu": "many"}))
    nodes.drop(node("b"))
    assert "left out" not in str(nodes)
    nodes.put(node("c", allocatable={"cpu": "many"}))
    nodes.filled({"a"})
    assert "left out" not in str(nodes)


def test_the_facts_know_of_a_node_that_cannot_be_read_until_it_is_gone_or_sound(known):
    nodes, broken = known.kind("nodes"), {"cpu": "many"}
    nodes.put(node("a"))
    nodes.put(node("b", allocatable=broken))
    assert known.facts.snapshot().blind().startswith("node b cannot be read: status.allocatable")
    changes = len(known.changes)
    nodes.put(node("b", allocatable=broken))
    assert len(known.changes) == changes
    nodes.put(node("b"))
    assert known.facts.snapshot().blind() == ""
    nodes.put(node("b", allocatable=broken))
    nodes.drop(node("b"))
    assert known.facts.snapshot().blind() == ""
    nodes.put(node("b", allocatable=broken))
    nodes.filled({"a"})
    assert known.facts.snapshot().blind() == ""
    assert known.changes


def test_an_object_without_a_name_is_told(known):
    nodes = known.kind("nodes")
    assert nodes.put({"apiVersion": "v1", "kind": "Node", "metadata": {}}) == ""
    assert "metadata.name: is missing" in str(nodes)
    nodes.drop({"apiVersion": "v1", "kind": "Node", "metadata": {}})


def test_a_kind_ages_from_its_last_sign_of_life(known):
    nodes = known.kind("nodes")
    assert nodes.age == math.inf
    nodes.alive()
    # A sign of life alone does not make up for what was never read.
    assert nodes.age == math.inf
    nodes.filled(set())
    known.clock.now += 30
    assert nodes.age == 30
    nodes.failed(RequestFailed(0, "gone"))
    assert nodes.age == 30
    assert "warning: gone" in str(nodes)
    nodes.alive()
    assert nodes.age == 0
    assert "warning" not in str(nodes)


def created(name, seconds_ago, marks=None):
    made = node(name, marks)
    made["metadata"]["creationTimestamp"] = f"2027-01-15T{8 - seconds_ago // 3600:02}:00:00Z"
    return made


def test_the_clock_of_these_tests_is_eight_in_the_morning():
    assert datetime.fromtimestamp(NOW, UTC).isoformat() == "2027-01-15T08:00:00+00:00"


def test_a_new_node_settles(known):
    nodes = known.kind("nodes")
    nodes.put(created("old", 3600))
    nodes.put(created("new", 0))
    nodes.put(node("unknown age"))
    assert known.facts.nodes["old"].settling_until is None
    assert known.facts.nodes["unknown age"].settling_until is None
    assert known.facts.nodes["new"].settling_until == NOW + SETTLING_SECONDS


def test_a_node_that_loses_a_label_of_kubevirt_settles_for_seven_minutes(known):
    nodes = known.kind("nodes")
    nodes.put(created("a", 3600, {LABEL: "true", "zone": "z"}))
    known.clock.now += 100
    nodes.put(created("a", 3600, {LABEL: "true"}))
    assert known.facts.nodes["a"].settling_until is None
    nodes.put(created("a", 3600))
    until = known.clock.now + SETTLING_SECONDS
    assert known.facts.nodes["a"].settling_until == until
    known.clock.now += 60
    nodes.put(created("a", 3600, {"other": "label"}))
    assert known.facts.nodes["a"].settling_until == until
    known.clock.now = until
    nodes.put(created("a", 3600, {"other": "again"}))
    assert known.facts.nodes["a"].settling_until is None


def test_a_node_whose_clock_runs_ahead_settles_no_longer_than_others(known):
    nodes = known.kind("nodes")
    made = node("ahead")
    made["metadata"]["creationTimestamp"] = "2099-01-01T00:00:00Z"
    nodes.put(made)
    assert known.facts.nodes["ahead"].settling_until == NOW + SETTLING_SECONDS


def test_what_is_shared_does_not_pile_up(monkeypatch):
    monkeypatch.setattr(sharing_module, "MOST_SHARED", 50)
    sharing = Sharing()
    pods = [LauncherPod.from_object(launcher(f"p-{n}", f"u-{n}", cpu=str(n))) for n in range(200)]
    assert [sharing.pod(pod) for pod in pods] == pods
    for shared in (sharing._strings, sharing._labels, sharing._amounts):
        # One object more than the limit brings a handful of strings.
        assert len(shared) <= 60

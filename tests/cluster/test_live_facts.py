"""Facts that are followed: a fault on the way is told and passes, and never looks fresh."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import pytest

from tests.cluster.objects import node
from webhook.cluster import live
from webhook.cluster.errors import RequestFailed
from webhook.cluster.facts import Facts
from webhook.cluster.live import LiveFacts
from webhook.cluster.reflector import Following
from webhook.cluster.resources import RESOURCES
from webhook.model.node import Node

NODES = tuple(r for r in RESOURCES if r.name == "nodes")
WITHIN = 30.0


class NoServer:
    """A connection to nothing: tests here play the reflector's part themselves."""

    host = "https://nowhere"

    def open(self, *_: object, **__: object) -> None:
        raise RequestFailed(0, "no server")


@dataclass
class Followed:
    now: float = 1000.0
    lines: list[str] = field(default_factory=list)
    told: list[None] = field(default_factory=list)
    fails: bool = False

    def tell(self, _: LiveFacts) -> None:
        self.told.append(None)
        if self.fails:
            raise BrokenPipeError("nobody listens")

    def make(self) -> LiveFacts:
        made = LiveFacts(
            NoServer(),  # type: ignore[arg-type]  # all of it that is used
            lambda: Following(180.0, False, 420.0),
            resources=NODES,
            told=self.tell,
            log=self.lines.append,
            monotonic=lambda: self.now,
        )
        self.kind = made.kinds[0]
        return made


@pytest.fixture
def followed(monkeypatch):
    monkeypatch.setattr(live, "TICK", 0.02)
    monkeypatch.setattr(live, "PAUSE_UNTIL_SYNCED", 0.02)
    return Followed()


def wait(until):
    ends = time.monotonic() + WITHIN
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.005)


def names(facts):
    return set(facts.snapshot().nodes.by_name)


def test_a_kind_counts_only_once_a_snapshot_holds_it(followed):
    facts = followed.make()
    followed.kind.put(node("a"))
    followed.kind.filled({"a"})
    # Nothing has made a snapshot yet.
    assert facts.snapshot().stale == ("nodes",)
    assert not facts.synced
    facts.start()
    wait(lambda: facts.synced)
    assert facts.snapshot().stale == ()
    assert names(facts) == {"a"}
    facts.stop()


def test_a_fault_while_a_snapshot_is_made_is_told_and_the_next_one_is_whole(followed, monkeypatch):
    facts = followed.make()
    make = Facts._namespaces
    faults: list[None] = []

    def fail_once(self):
        if not faults:
            faults.append(None)
            raise RuntimeError("broken\nin two")
        return make(self)

    followed.kind.put(node("a"))
    followed.kind.filled({"a"})
    monkeypatch.setattr(Facts, "_namespaces", fail_once)
    facts._facts._changed.add("namespaces")
    facts.start()
    wait(lambda: names(facts) == {"a"})
    assert followed.lines == [
        "facts: a fault of migration-guard itself: RuntimeError: broken in two"
    ]
    facts.stop()


def test_facts_that_nobody_makes_snapshots_of_any_more_grow_old(followed):
    facts = followed.make()
    followed.kind.filled(set())
    facts.start()
    wait(lambda: facts.synced)
    facts.stop()
    facts._thread.join(WITHIN)
    followed.now += 181
    followed.kind.alive()
    assert followed.kind.age == 0
    assert facts.snapshot().stale == ("nodes",)


def test_a_listener_that_fails_does_not_stop_the_facts(followed):
    followed.fails = True
    facts = followed.make()
    followed.kind.filled(set())
    facts.start()
    wait(lambda: followed.lines)
    followed.kind.put(node("a"))
    wait(lambda: names(facts) == {"a"})
    assert "BrokenPipeError" in followed.lines[0]
    facts.stop()


def test_an_object_that_no_reader_expected_stops_no_other(followed, monkeypatch):
    facts = followed.make()
    read = Node.from_object

    def odd(obj):
        if obj["metadata"]["name"] == "odd":
            raise RecursionError("too deep")
        return read(obj)

    monkeypatch.setattr(Node, "from_object", odd)
    for name in ("a", "odd", "b"):
        followed.kind.put(node(name))
    assert set(facts._facts.nodes) == {"a", "b"}
    assert "1 left out; the first: odd: RecursionError: too deep" in str(followed.kind)


def test_before_anything_was_read_its_age_has_no_end(followed):
    assert followed.make().age == math.inf

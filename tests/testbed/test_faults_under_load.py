"""An API server that goes away, falls silent or forgets, while it asks the guard all the time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from tests.testbed.bed.address import APISERVER_PORT
from tests.testbed.bed.api import Object, path
from tests.testbed.bed.forwarder import Forwarder
from tests.testbed.bed.guard import SETTLED, SETTLED_AFTER, Guard
from tests.testbed.bed.load import Outcome, Question, SteadyLoad
from tests.testbed.bed.pool import KUBEVIRT, WITHIN, Pool
from tests.testbed.bed.testbed import TestBed
from tests.testbed.knowing import Probe, wait_until_known

STRANGE_NODE: Object = {
    "metadata": {
        "labels": {
            "kubevirt.io/schedulable": "perhaps",
            "cpu-vendor.node.kubevirt.io/Zhaoxin": "maybe",
            "cpu-timer.node.kubevirt.io/tsc-frequency": "fast",
        }
    },
    "spec": {"shine": 1},
    "status": {
        "conditions": [{"type": "Glowing", "status": "Mostly"}],
        "capacity": {},
        "allocatable": {"test/odd": "1"},
    },
}
"""Labels, conditions and fields that nothing knows, and amounts without those that all have."""


@pytest.fixture(scope="module")
def way(_one_bed: TestBed) -> Iterator[Forwarder]:
    """What stands between the guard and the API server."""
    forwarder = Forwarder(_one_bed.address, [(_one_bed.address, APISERVER_PORT)])
    yield forwarder
    forwarder.close()


@pytest.fixture(scope="module")
def guard(
    _one_bed: TestBed, way: Forwarder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    """The guard, which reaches the API server through a forwarder."""
    server = f"https://{_one_bed.address}:{way.port}"
    folder = tmp_path_factory.mktemp("guard")
    installed = Guard(_one_bed, folder, server=server)
    try:
        installed.install()
        yield installed
    finally:
        installed.uninstall()


@pytest.fixture
def short_watches(guard: Guard) -> Iterator[None]:
    """Watches of 5 to 8 seconds; one that falls silent is given up 5 seconds after its end."""
    guard.restart("facts: {settleAfter: 1s, staleAfter: 16s}\n")
    yield
    guard.restart(SETTLED)


@pytest.fixture
def strange_nodes(pool: Pool) -> None:
    """Nodes unlike all others, old enough to count: a young one may still get what it lacks."""
    for name, obj in ((f"{pool.name}-bare", {}), (f"{pool.name}-strange", STRANGE_NODE)):
        named = {**obj, "metadata": {**obj.get("metadata", {}), "name": name}}
        pool.api.create(path("v1", "nodes"), named)
        pool.nodes.append(name)
    pool.wait_until_older(SETTLED_AFTER)


@pytest.fixture
def load(
    testbed: TestBed, guard: Guard, questions: tuple[Question, Question], probe: Probe
) -> Iterator[SteadyLoad]:
    """Reviews, all the time; after the test the guard still decides all of them rightly."""
    with SteadyLoad(testbed.api, questions) as running:
        yield running
        running.settle()


def test_a_connection_cut_in_the_middle_of_a_watch_costs_no_review(
    guard: Guard, load: SteadyLoad, way: Forwarder, probe: Probe
) -> None:
    for _ in range(3):
        way.cut()
        probe.turn()
        wait_until_known(probe, guard)
    assert load.not_right() == []


def test_a_watch_that_falls_silent_is_replaced_before_its_facts_are_too_old(
    guard: Guard, short_watches: None, load: SteadyLoad, way: Forwarder, probe: Probe
) -> None:
    way.silence()
    probe.turn()
    wait_until_known(probe, guard)
    assert load.not_right() == []


def test_nothing_is_lost_but_what_the_api_server_cannot_take_while_it_restarts(
    testbed: TestBed, guard: Guard, load: SteadyLoad, probe: Probe
) -> None:
    down = time.monotonic()
    testbed.plane.restart_apiserver()
    up = time.monotonic()
    testbed.revive()
    probe.turn()
    wait_until_known(probe, guard)
    load.settle()
    assert load.not_right(Outcome.UNHEARD) == []
    assert [answer for answer in load.not_right() if not answer.overlaps(down, up)] == []


def test_changes_that_the_api_server_has_forgotten_are_read_anew_beside_reviews(
    testbed: TestBed, guard: Guard, load: SteadyLoad, way: Forwarder, probe: Probe
) -> None:
    way.refuse(True)
    probe.turn()
    testbed.plane.compact()
    down = time.monotonic()
    # Its own memory reaches back further than that of etcd.
    testbed.plane.restart_apiserver()
    up = time.monotonic()
    load.settle()
    way.refuse(False)
    testbed.revive()
    wait_until_known(probe, guard)
    assert load.not_right(Outcome.UNHEARD) == []
    assert [answer for answer in load.not_right() if not answer.overlaps(down, up)] == []


def stored_vmi(pool: Pool, name: str, spec: Object) -> str:
    """Put a VMI into the cluster past all checks; return its path."""
    vmi = {
        "apiVersion": KUBEVIRT,
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": pool.namespace, "uid": str(uuid.uuid4())},
        "spec": spec,
        "status": {"phase": "Dreaming", "migrationMethod": "Teleport"},
    }
    pool.bed.plane.store(
        f"/registry/kubevirt.io/virtualmachineinstances/{pool.namespace}/{name}", vmi
    )
    return pool.at(KUBEVIRT, "virtualmachineinstances", name)


def test_objects_that_no_controller_can_read_leave_the_facts_of_all_others_whole(
    testbed: TestBed,
    guard: Guard,
    strange_nodes: None,
    load: SteadyLoad,
    probe: Probe,
    pool: Pool,
) -> None:
    # KubeVirt's webhooks and definitions would not let these in; a later version's may.
    unreadable = stored_vmi(pool, "unreadable", {"domain": {"cpu": {"model": ["x"]}}})
    unknown = stored_vmi(pool, "unknown", {"domain": {"shine": 1}, "evictionStrategy": "Sometimes"})
    (replica,) = guard.replicas
    told = f"1 left out; the first: {pool.namespace}/unreadable: spec.domain.cpu.model"
    testbed.api.wait_until(
        lambda: told in replica.ask("/readyz?verbose")[1], WITHIN, "what is left out is told"
    )
    load.settle()
    for vmi in (unknown, unreadable):
        testbed.api.delete(vmi)
    probe.turn()
    wait_until_known(probe, guard)
    assert "left out" not in replica.ask("/readyz?verbose")[1]
    assert load.not_right() == []

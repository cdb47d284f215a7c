"""With the component ``drain``: who drains a node reads why, and only what can leave is asked."""

from __future__ import annotations

import subprocess

from tests.testbed.bed.guard import SETTLED, SETTLED_AFTER, Guard
from tests.testbed.bed.pool import Pool
from tests.testbed.evacuations import Evacuation
from tests.testbed.stuck import stuck

OVERLAY = "overlays/drain"
TRIES_AGAIN = "will retry after 5s"
"""What ``kubectl drain`` says of an answer with code 429."""


def drained(pool: Pool, source: str, seconds: int, *more: str) -> subprocess.CompletedProcess[str]:
    return pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", f"--timeout={seconds}s", *more),
    )


def test_a_drain_says_at_once_why_a_vm_cannot_leave_and_what_would_help(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
    ran = drained(pool, source, 12)
    assert ran.returncode == 1
    said = f"eviction of VM {pool.namespace}/web from node {source} refused: no other node can take"
    assert ran.stderr.count(said) >= 2
    assert TRIES_AGAIN in ran.stderr
    assert f"{pool.nodes[1]} lacks cpu-vendor.node.kubevirt.io/Intel" in ran.stderr
    # KubeVirt was not asked: it would go on trying for as long as the VM runs.
    assert "evacuationNodeName" not in pool.vmi("web")["status"]
    assert pool.migrations("web") == []
    told = pool.wait_event("VirtualMachineInstance", "web", "EvictionRefused")
    assert said in told["message"]
    asked = [d for d in guard.decisions() if d["namespace"] == pool.namespace]
    refused = [d for d in asked if d["kind"] == "Eviction"]
    assert {(d["outcome"], d["origin"]) for d in refused} == {("refused", "evacuation")}
    # The same each time that the drain tries again.
    assert len({d["decision"] for d in refused}) == 1


def test_a_dry_run_of_a_drain_tells_it_before_anything_moves(pool: Pool, guard: Guard) -> None:
    source, _ = pool.node("icelake"), pool.node("cascadelake")
    pool.vm("web", "host-model", on=source)
    pool.vm("movable", "Haswell", on=source)
    pool.wait_until_older(SETTLED_AFTER)
    ran = drained(pool, source, 4, "--dry-run=server")
    assert f"eviction of VM {pool.namespace}/web from node {source} refused" in ran.stderr
    assert f"eviction of VM {pool.namespace}/movable" not in ran.stderr
    for name in ("web", "movable"):
        assert "evacuationNodeName" not in pool.vmi(name)["status"]
        assert pool.migrations(name) == []
    reasons = [event["reason"] for event in pool.events("VirtualMachineInstance", "web")]
    assert "EvictionRefused" not in reasons


def test_a_vm_that_can_leave_leaves(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    ran = drained(pool, source, 60)
    assert ran.returncode == 0, ran.stderr
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_a_drain_ends_once_another_node_can_take_the_vm(pool: Pool, guard: Guard) -> None:
    source = stuck(pool)
    assert drained(pool, source, 2).returncode == 1
    target = pool.node("icelake")
    guard.wait_for_fact()
    # A refused eviction leaves nothing behind: whoever wants the node empty must ask again.
    assert "evacuationNodeName" not in pool.vmi("web")["status"]
    assert pool.migrations("web") == []
    ran = drained(pool, source, 60)
    assert ran.returncode == 0, ran.stderr
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_those_that_can_leave_do_not_wait_for_those_that_cannot(pool: Pool, guard: Guard) -> None:
    evacuation = Evacuation(pool, stuck=6, movable=2)
    evacuation.prepare()
    ended = evacuation.run(60.0)
    assert set(ended.left) == set(evacuation.movable)
    # Not one was tried that could not succeed.
    assert evacuation.attempts() == len(evacuation.movable)


def test_with_the_guard_dead_kubevirt_is_asked_as_ever(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    with guard.dead():
        ran = drained(pool, source, 60)
    assert ran.returncode == 0, ran.stderr
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_where_evacuations_are_only_warned_about_the_drain_is_warned_and_goes_on(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
    warn = "rules: {incompatible-target: {origins: {evacuation: warn}}}\n"
    guard.configure(f"{SETTLED}{warn}")
    guard.wait_for_fact()
    try:
        ran = drained(pool, source, 4)
        assert f"Warning: eviction of VM {pool.namespace}/web from node {source} cannot" in (
            ran.stderr
        )
        assert pool.vmi("web")["status"]["evacuationNodeName"] == source
    finally:
        guard.configure(SETTLED)

"""The disruption budget of two replicas, by the real disruption controller and eviction API."""

from __future__ import annotations

import subprocess

from tests.manifests.rendering import overlay, the
from tests.testbed.bed.api import Object
from tests.testbed.bed.pool import Pool

WITHIN = 30.0
APP = "app.kubernetes.io/name"


def start(pool: Pool, name: str, node: str) -> None:
    """Start a pod that looks to the budget like a replica, and wait until it is ready."""
    pod: Object = {
        "metadata": {"name": name, "labels": {APP: "migration-guard"}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "guard", "image": "registry.test/guard:1"}],
        },
    }
    pool.api.create(pool.at("v1", "pods"), pod)
    pool.api.wait_for(
        pool.at("v1", "pods"),
        lambda found: found.get("status", {}).get("phase") == "Running",
        WITHIN,
        f"{name} runs",
        fieldSelector=f"metadata.name={name}",
    )


def lose(pool: Pool, name: str) -> None:
    """Write what the node controller writes of a pod whose node says nothing any more."""
    lost = [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]
    pool.api.patch(pool.at("v1", "pods", name) + "/status", {"status": {"conditions": lost}})


def wait_allowed(pool: Pool, disruptions: int) -> None:
    """Wait until the budget allows so many disruptions."""
    pool.api.wait_for(
        pool.at("policy/v1", "poddisruptionbudgets"),
        lambda budget: budget.get("status", {}).get("disruptionsAllowed") == disruptions,
        WITHIN,
        f"{disruptions} disruptions are allowed",
    )


def drained(pool: Pool, node: str) -> subprocess.CompletedProcess[str]:
    return pool.bed.kubectl("drain", node, "--force", f"--pod-selector={APP}", "--timeout=3s")


def test_a_drain_takes_a_replica_that_is_not_ready_and_never_the_last_that_is(pool: Pool) -> None:
    first, second, third = pool.node(), pool.node(), pool.node()
    start(pool, "guard-0", first)
    start(pool, "guard-1", second)
    budget = the(overlay("high-availability"), "PodDisruptionBudget")
    budget["metadata"] = {"name": "migration-guard"}
    pool.api.create(pool.at("policy/v1", "poddisruptionbudgets"), budget)
    wait_allowed(pool, 1)

    lose(pool, "guard-1")
    wait_allowed(pool, 0)
    held_up = drained(pool, first)
    assert held_up.returncode == 1
    assert "would violate the pod's disruption budget" in held_up.stderr
    assert drained(pool, second).returncode == 0
    assert drained(pool, first).returncode == 1

    start(pool, "guard-1", third)
    wait_allowed(pool, 1)
    assert drained(pool, first).returncode == 0
    left = [pod["metadata"]["name"] for pod in pool.api.items(pool.at("v1", "pods"))]
    assert left == ["guard-1"]

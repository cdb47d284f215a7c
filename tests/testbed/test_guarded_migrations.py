"""End to end: what users of a guarded cluster see when they start a migration."""

from __future__ import annotations

import json

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.pool import Pool

DECISION = "migration-guard.io/decision"
NO = 'admission webhook "migration-create.validate.migration-guard.io" denied the request: '


def stuck(pool: Pool, guard: Guard) -> str:
    """Start a VM on a node whose CPU no other node has; return the node."""
    source = pool.node("icelake")
    pool.node("milan")
    pool.vm("web", on=source)
    guard.wait_until_settled(pool.nodes)
    return source


def test_a_vm_gets_the_default_model_and_migrates_with_a_deadline(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    notes = pool.vm("web", on=source)["metadata"]["annotations"]
    assert notes["migration-guard.io/cpu-model"] == "host-model"
    assert notes["migration-guard.io/cpu-model-source"] == "default"

    name = pool.migrate("web")
    pod = pool.target_pod(name)
    migration = pool.wait_migration(name)

    written = migration["metadata"]["annotations"]
    assert written["migration-guard.io/completion-timeout"] == "800s"
    assert written["migration-guard.io/completion-basis"].startswith("1 GiB x 800 s/GiB")
    deadline = written["migration-guard.io/completion-deadline"]
    assert pod["metadata"]["annotations"]["migration-guard.io/completion-deadline"] == deadline
    assert pod["metadata"]["annotations"][DECISION] == written[DECISION]
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_kubectl_is_told_why_a_migration_cannot_succeed_and_what_would_help(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool, guard)
    manifest = json.dumps(pool.migration_manifest("web"))
    ran = pool.bed.kubectl("create", "-n", pool.namespace, "-f", "-", stdin=manifest)
    assert ran.returncode == 1
    assert "Error from server (Forbidden): error when creating" in ran.stderr
    assert NO in ran.stderr
    assert f"migration of VM {pool.namespace}/web from node {source} refused" in ran.stderr
    assert f"{pool.nodes[1]} lacks cpu-vendor.node.kubevirt.io/Intel" in ran.stderr
    assert pool.migrations("web") == []
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert event["message"] in ran.stderr

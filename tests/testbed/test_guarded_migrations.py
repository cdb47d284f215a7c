"""End to end: what users of a guarded cluster see when they start a migration."""

from __future__ import annotations

import json
from datetime import datetime

from tests.testbed.bed.api import Object
from tests.testbed.bed.guard import Guard
from tests.testbed.bed.pool import Pool
from tests.testbed.stuck import stuck

DECISION = "migration-guard.io/decision"
TIMEOUT = "migration-guard.io/completion-timeout"
DEADLINE = "migration-guard.io/completion-deadline"
BASIS = "migration-guard.io/completion-basis"
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
NO = 'admission webhook "migration-create.validate.migration-guard.io" denied the request: '


def assert_has_deadline(migration: Object, pod: Object) -> None:
    """The migration of a guest of 1 GiB says until when it must be done; so does its pod."""
    written = migration["metadata"]["annotations"]
    assert written[TIMEOUT] == "800s"
    assert written[BASIS].startswith("1 GiB x 800 s/GiB")
    made = datetime.fromisoformat(migration["metadata"]["creationTimestamp"])
    allowed = (datetime.fromisoformat(written[DEADLINE]) - made).total_seconds()
    assert 799 <= allowed <= 810
    on_pod = pod["metadata"]["annotations"]
    for key in (TIMEOUT, BASIS, DECISION):
        assert on_pod[key] == written[key]
    # That of the migration has been made true since: it counts from the start of the copying.
    assert datetime.fromisoformat(on_pod[DEADLINE]) <= datetime.fromisoformat(written[DEADLINE])


def test_a_vm_gets_the_default_model_and_migrates_with_a_deadline(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    notes = pool.vm("web", on=source)["metadata"]["annotations"]
    assert notes["migration-guard.io/cpu-model"] == "host-model"
    assert notes["migration-guard.io/cpu-model-source"] == "default"

    name = pool.migrate("web")
    pod = pool.target_pod(name)
    migration = pool.wait_migration(name)

    assert_has_deadline(migration, pod)
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_kubectl_is_told_why_a_migration_cannot_succeed_and_what_would_help(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
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


def test_virtctl_is_told_the_same(pool: Pool, guard: Guard) -> None:
    source = stuck(pool)
    ran = pool.bed.virtctl("migrate", "web", "--namespace", pool.namespace)
    assert ran.returncode == 1
    assert NO in ran.stderr
    assert f"migration of VM {pool.namespace}/web from node {source} refused" in ran.stderr
    assert "Decision " in ran.stderr


def test_virtctl_starts_a_migration_that_can_succeed(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    ran = pool.bed.virtctl("migrate", "web", "--namespace", pool.namespace)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "VM web was scheduled to migrate\n"
    (started,) = pool.migrations("web")
    pod = pool.target_pod(started["metadata"]["name"])
    migration = pool.wait_migration(started["metadata"]["name"])
    assert_has_deadline(migration, pod)
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_every_kind_of_model_migrates_where_a_node_fits_and_has_a_deadline(
    pool: Pool, guard: Guard
) -> None:
    one, other = pool.node(), pool.node()
    pool.node("milan")
    kinds: dict[str, tuple[str, dict[str, str] | None]] = {
        "named": ("Haswell", None),
        "passthrough": ("host-passthrough", None),
        "demanding": ("host-model", {"avx512f": "require"}),
        "forgoing": ("host-model", {"avx512f": "disable"}),
    }
    # From both nodes: KubeVirt lets no more than two leave a node at a time.
    sources = dict(zip(kinds, (one, other) * 2, strict=True))
    for name, (model, features) in kinds.items():
        pool.vm(name, model, features, on=sources[name])
    started = {name: pool.migrate(name) for name in kinds}
    pods = {name: pool.target_pod(migration) for name, migration in started.items()}
    for name, migration in started.items():
        assert_has_deadline(pool.wait_migration(migration), pods[name])
        assert pool.vmi(name)["status"]["nodeName"] == (other if sources[name] == one else one)


def test_a_drain_leaves_the_reason_in_events_on_the_vmi(pool: Pool, guard: Guard) -> None:
    source = stuck(pool)
    drained = pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "4s"),
    )
    assert drained.returncode == 1
    of_kubevirt = pool.wait_event("VirtualMachineInstance", "web", "FailedCreate")
    ours = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert ours["message"] in of_kubevirt["message"]
    assert f"migration of VM {pool.namespace}/web from node {source} refused" in ours["message"]
    asked = [d for d in guard.decisions() if d["namespace"] == pool.namespace]
    refused = [d for d in asked if d["outcome"] == "refused"]
    assert {(d["origin"], d["user"]) for d in refused} == {("evacuation", CONTROLLER)}
    # The controller tries again and again, and is told the same each time.
    assert len({d["decision"] for d in refused}) == 1


def test_a_drained_vm_that_can_move_moves(pool: Pool, guard: Guard) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    drained = pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "60s"),
    )
    assert drained.returncode == 0, drained.stderr
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_a_workload_update_that_cannot_succeed_is_let_through_and_told(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    stuck(pool)
    update = {"workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}}
    pool.api.patch(kubevirt_cr, {"spec": update})
    bed = pool.bed
    assert bed.kubevirt is not None
    with bed.kubevirt.new_launcher_image("registry.test/virt-launcher:2"):
        told = pool.wait_event("VirtualMachineInstance", "web", "MigrationWarned")
        (migration,) = pool.migrations("web")
    assert "kubevirt.io/workloadUpdateMigration" in migration["metadata"]["annotations"]
    assert "lacks cpu-vendor.node.kubevirt.io/Intel" in told["message"]
    asked = [d for d in guard.decisions() if d["namespace"] == pool.namespace]
    assert [
        (d["outcome"], d["origin"]) for d in asked if d["outcome"] in ("refused", "warned")
    ] == [("warned", "workload-update")]

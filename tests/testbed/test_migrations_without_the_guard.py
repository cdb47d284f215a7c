"""The bed itself is right: real KubeVirt migrates on it, and shows what the guard is there for."""

from __future__ import annotations

import pytest

from tests.testbed.bed.conditions import unschedulable
from tests.testbed.bed.pool import Pool

MODEL = "cpu-model-migration.node.kubevirt.io/"
FEATURE = "cpu-feature.node.kubevirt.io/"
VENDOR = "cpu-vendor.node.kubevirt.io/"
HOST_MODEL = "host-model-cpu.node.kubevirt.io/"


@pytest.mark.parametrize("model", [None, "host-model", "Haswell", "host-passthrough"])
def test_a_vm_migrates_to_the_other_node(pool: Pool, model: str | None) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", model, on=source)
    pool.wait_migration(pool.migrate("web"))
    moved = pool.vmi("web")["status"]
    assert moved["migrationState"]["sourceNode"] == source
    assert moved["nodeName"] == target


def test_virtctl_migrates(pool: Pool) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    ran = pool.bed.virtctl("migrate", "web", "--namespace", pool.namespace)
    assert ran.returncode == 0, ran.stderr
    (migration,) = pool.migrations("web")
    pool.wait_migration(migration["metadata"]["name"])
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_a_drained_node_is_left(pool: Pool) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    ran = pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "60s"),
    )
    assert ran.returncode == 0, ran.stderr
    assert pool.vmi("web")["status"]["nodeName"] == target


def test_a_host_model_migration_without_a_node_hangs_and_names_no_reason(pool: Pool) -> None:
    source = pool.node("icelake")
    pool.node("cascadelake")
    pool.node("milan")
    pool.vm("web", "host-model", on=source)
    hangs(pool, "web")


def hangs(pool: Pool, vmi: str) -> dict[str, str]:
    """Migrate a VM that no node can take; nobody says why. Return what its target pod asks for."""
    name = pool.migrate(vmi)
    pod = pool.wait_unschedulable(pool.target_pod(name)["metadata"]["name"])
    said = unschedulable(pod)
    assert said is not None
    assert "didn't match Pod's node affinity/selector" in said
    assert "cpu-" not in said
    hanging = pool.wait_migration(name, "Scheduling")
    assert "conditions" not in hanging["status"]
    asked: dict[str, str] = pod["spec"]["nodeSelector"]
    return asked


def test_selectors_remembered_from_an_earlier_migration_hold_when_no_node_meets_them_any_more(
    pool: Pool,
) -> None:
    nodes = pool.node("icelake"), pool.node("icelake")
    pool.vm("web", "host-model", on=nodes[0])
    pool.wait_migration(pool.migrate("web"))
    gone = f"{FEATURE}gfni"
    required = "host-model-required-features.node.kubevirt.io/gfni"
    for node in nodes:
        pool.change_node(node, {"metadata": {"labels": {gone: None, required: None}}})
    assert gone in hangs(pool, "web")


def lands_on(pool: Pool, other: str, added: dict[str, str] | None = None) -> dict[str, str]:
    """Migrate the VM to a node with another CPU, unhindered; return what its pod asked for."""
    name = pool.migrate("web", added)
    asked: dict[str, str] = pool.target_pod(name)["spec"]["nodeSelector"]
    pool.wait_migration(name)
    assert pool.vmi("web")["status"]["nodeName"] == other
    return asked


def test_a_required_feature_makes_the_target_forget_the_source_cpu(pool: Pool) -> None:
    source, other = pool.node("icelake"), pool.node("cascadelake")
    pool.vm("web", "host-model", {"avx512f": "require"}, on=source)
    asked = lands_on(pool, other)
    assert [key for key in asked if key.startswith((MODEL, FEATURE))] == [f"{FEATURE}avx512f"]


def test_a_source_without_host_model_label_fails_open(pool: Pool) -> None:
    source = pool.node("icelake", labels={f"{HOST_MODEL}Icelake-Server": None})
    other = pool.node("cascadelake")
    pool.vm("web", "host-model", on=source)
    asked = lands_on(pool, other)
    assert not [key for key in asked if key.startswith((MODEL, FEATURE))]


def test_an_added_vendor_sends_a_host_passthrough_guest_to_the_other_vendor(pool: Pool) -> None:
    source, other = pool.node("icelake"), pool.node("milan")
    pool.vm("web", "host-passthrough", on=source)
    asked = lands_on(pool, other, {f"{VENDOR}AMD": "true"})
    assert [key for key in asked if key.startswith(VENDOR)] == [f"{VENDOR}AMD"]


def test_a_host_passthrough_guest_is_sent_to_any_cpu_of_the_vendor(pool: Pool) -> None:
    source, other = pool.node("icelake"), pool.node("cascadelake")
    pool.vm("web", "host-passthrough", on=source)
    asked = lands_on(pool, other)
    assert not [key for key in asked if key.startswith((MODEL, FEATURE))]


def test_a_host_model_vm_starts_on_a_node_that_its_guest_cannot_leave(pool: Pool) -> None:
    # The scheduler takes the node with the most room.
    alone = pool.node("milan", size={"cpu": "64", "memory": "256Gi"})
    for _ in range(2):
        pool.node("icelake")
    vmi = pool.vm("web", "host-model")
    (pod,) = pool.launcher_pods("web")
    assert not [key for key in pod["spec"]["nodeSelector"] if "cpu-" in key]
    assert vmi["status"]["nodeName"] == alone
    hangs(pool, "web")


def test_a_migration_that_fails_says_so(pool: Pool) -> None:
    source = pool.node()
    pool.node()
    pool.vm("web", on=source, annotations={"testbed/migration-fail": "the guest is too busy"})
    pool.wait_migration(pool.migrate("web"), "Failed")
    left = pool.vmi("web")["status"]
    assert left["migrationState"]["failureReason"] == "the guest is too busy"
    assert left["nodeName"] == source


def test_a_running_migration_is_aborted_by_deleting_it(pool: Pool) -> None:
    source = pool.node()
    pool.node()
    pool.vm("web", on=source, annotations={"testbed/migration-hold": "yes"})
    name = pool.migrate("web")
    pool.wait_migration(name, "Running")
    migrations = pool.at("kubevirt.io/v1", "virtualmachineinstancemigrations")
    pool.api.delete(f"{migrations}/{name}")
    pool.api.wait_until_empty(migrations, 30)
    state = pool.vmi("web")["status"]["migrationState"]
    assert state["failureReason"] == "Live migration has been aborted"

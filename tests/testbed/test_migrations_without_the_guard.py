"""The bed itself is right: real KubeVirt migrates on it, and shows what the guard is there for."""

from __future__ import annotations

import pytest

from tests.testbed.bed.conditions import unschedulable
from tests.testbed.bed.pool import Pool


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
    name = pool.migrate("web")
    pod = pool.wait_unschedulable(pool.target_pod(name)["metadata"]["name"])
    said = unschedulable(pod)
    assert said is not None
    assert "didn't match Pod's node affinity/selector" in said
    assert "cpu-" not in said
    hanging = pool.wait_migration(name, "Scheduling")
    assert "conditions" not in hanging["status"]


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

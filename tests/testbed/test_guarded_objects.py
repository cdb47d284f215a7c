"""What users of a guarded cluster see when they change VMs, and the KubeVirt CR."""

from __future__ import annotations

import json

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.pool import Pool, vm_manifest

MODEL = {"spec": {"configuration": {"cpuModel": "Nonesuch"}}}


def apply(pool: Pool, obj: dict, *more: str):
    return pool.bed.kubectl(
        "apply", "--namespace", pool.namespace, "-f", "-", *more, stdin=json.dumps(obj)
    )


def test_kubectl_apply_warns_of_a_model_that_no_node_can_run(pool: Pool, guard: Guard) -> None:
    pool.node()
    vm = vm_manifest("web", "Nonesuch")
    vm["spec"]["runStrategy"] = "Halted"
    for dry in (("--dry-run=server",), ()):
        ran = apply(pool, vm, *dry)
        assert ran.returncode == 0, ran.stderr
        assert f'Warning: CPU model "Nonesuch" of VM {pool.namespace}/web' in ran.stderr
        assert "is usable on no node" in ran.stderr


def test_a_changed_model_of_a_running_vm_is_said_to_need_a_restart(
    pool: Pool, guard: Guard
) -> None:
    source = pool.node()
    pool.vm("web", "Haswell", on=source)
    change = {"spec": {"template": {"spec": {"domain": {"cpu": {"model": "Broadwell"}}}}}}
    ran = pool.bed.kubectl(
        *("patch", "vm", "web", "--namespace", pool.namespace, "--type", "merge"),
        *("--patch", json.dumps(change)),
    )
    assert ran.returncode == 0, ran.stderr
    assert "after a restart only" in ran.stderr


def test_a_cluster_wide_model_that_no_node_can_run_is_refused(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    pool.node()
    guard.wait_for_fact()
    ran = pool.bed.kubectl(
        *("patch", "kubevirt", "kubevirt", "--namespace", "kubevirt", "--type", "merge"),
        *("--patch", json.dumps(MODEL)),
    )
    assert ran.returncode == 1
    assert "denied the request" in ran.stderr
    assert '"Nonesuch"' in ran.stderr


def test_a_cluster_wide_model_that_some_nodes_cannot_run_is_warned_about_in_a_dry_run_too(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    pool.node("icelake")
    left_out = pool.node("milan")
    guard.wait_for_fact()
    change = {"spec": {"configuration": {"cpuModel": "Cascadelake-Server"}}}
    before = pool.api.get(kubevirt_cr)["spec"]
    for dry in (("--dry-run=server",), ()):
        ran = pool.bed.kubectl(
            *("patch", "kubevirt", "kubevirt", "--namespace", "kubevirt", "--type", "merge"),
            *("--patch", json.dumps(change), *dry),
        )
        assert ran.returncode == 0, ran.stderr
        assert "Warning:" in ran.stderr
        assert left_out in ran.stderr
        assert (pool.api.get(kubevirt_cr)["spec"] == before) is bool(dry)

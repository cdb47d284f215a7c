"""What KubeVirt forgets on a target pod, the guard adds before the scheduler sees it."""

from __future__ import annotations

import json

import pytest

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.pool import Pool

MODEL = "cpu-model-migration.node.kubevirt.io/"
INTEL, AMD = "cpu-vendor.node.kubevirt.io/Intel", "cpu-vendor.node.kubevirt.io/AMD"


def test_a_required_feature_no_longer_hides_the_cpu_of_the_source(pool: Pool, guard: Guard) -> None:
    source, alike = pool.node("icelake"), pool.node("icelake")
    pool.node("cascadelake")
    pool.vm("web", "host-model", {"aes": "require"}, on=source)
    name = pool.migrate("web")
    demanded = pool.target_pod(name)["spec"]["nodeSelector"]
    assert demanded[f"{MODEL}Icelake-Server"] == "true"
    assert demanded["cpu-feature.node.kubevirt.io/gfni"] == "true"
    shown = pool.wait_migration(name)["spec"]["addedNodeSelector"]
    assert shown.items() <= demanded.items()
    assert f"{MODEL}Icelake-Server" in shown
    assert pool.vmi("web")["status"]["nodeName"] == alike


@pytest.mark.parametrize("model", ["host-model", "host-passthrough"])
def test_nobody_sends_a_guest_to_another_vendor_by_an_added_selector(
    pool: Pool, guard: Guard, model: str
) -> None:
    source = pool.node("cascadelake")
    pool.node("cascadelake")
    pool.node("milan")
    pool.vm("web", model, on=source)
    manifest = pool.migration_manifest("web", {AMD: "true"})
    refused = _create(pool, guard, manifest)
    assert "refused" in refused
    assert INTEL in refused or AMD in refused
    assert pool.migrations("web") == []


def test_a_source_without_a_host_model_is_refused_by_name(pool: Pool, guard: Guard) -> None:
    label = "host-model-cpu.node.kubevirt.io/Icelake-Server"
    source = pool.node("icelake", labels={label: None})
    pool.node("icelake")
    pool.vm("web", "host-model", on=source)
    refused = _create(pool, guard, pool.migration_manifest("web"))
    assert f'the source node "{source}" has no label host-model-cpu.node.kubevirt.io/*' in refused


def test_what_the_guard_demands_is_scheduled_and_a_second_migration_remembers_it(
    pool: Pool, guard: Guard
) -> None:
    first, second = pool.node("icelake"), pool.node("icelake")
    pool.node("cascadelake")
    pool.vm("web", "host-model", {"aes": "require"}, on=first)
    pool.wait_migration(pool.migrate("web"))
    assert pool.vmi("web")["status"]["nodeName"] == second
    back = pool.migrate("web")
    assert f"{MODEL}Icelake-Server" in pool.target_pod(back)["spec"]["nodeSelector"]
    pool.wait_migration(back)
    assert pool.vmi("web")["status"]["nodeName"] == first


def _create(pool: Pool, guard: Guard, manifest: dict) -> str:
    """Create a migration that must be refused; return what the user reads."""
    guard.wait_until_settled(pool.nodes)
    ran = pool.bed.kubectl("create", "-n", pool.namespace, "-f", "-", stdin=json.dumps(manifest))
    assert ran.returncode == 1, ran.stdout
    return ran.stderr

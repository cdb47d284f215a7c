"""What KubeVirt 1.8.4 leaves open, with the guard: each is refused, or its selector is there.

That it is open without the guard stands in test_migrations_without_the_guard.py.
"""

from __future__ import annotations

import pytest

from tests.testbed.bed.api import ApiError, Object
from tests.testbed.bed.guard import SETTLED_AFTER, Guard
from tests.testbed.bed.pool import Pool

MODEL = "cpu-model-migration.node.kubevirt.io/"
VENDOR = "cpu-vendor.node.kubevirt.io/"
HOST_MODEL = "host-model-cpu.node.kubevirt.io/"


def refused(pool: Pool, added: dict[str, str] | None = None) -> str:
    """Start a migration that must be refused; return why."""
    pool.wait_until_older(SETTLED_AFTER)
    with pytest.raises(ApiError) as error:
        pool.migrate("web", added)
    assert error.value.status == 403
    return error.value.message


def selector(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["spec"]["nodeSelector"]
    return found


def test_a_required_feature_no_longer_makes_the_target_forget_the_source_cpu_nor_the_way_back(
    pool: Pool, guard: Guard
) -> None:
    source, target = pool.node("icelake"), pool.node("icelake")
    pool.node("cascadelake")
    pool.vm("web", "host-model", {"avx512f": "require"}, on=source)
    name = pool.migrate("web")
    added = pool.migration(name)["spec"]["addedNodeSelector"]
    assert added[f"{MODEL}Icelake-Server"] == "true"
    posted = selector(pool.target_pod(name))
    assert posted[f"{MODEL}Icelake-Server"] == "true"
    assert "cpu-feature.node.kubevirt.io/gfni" in posted
    pool.wait_migration(name)
    assert pool.vmi("web")["status"]["nodeName"] == target

    back = pool.migrate("web")
    assert selector(pool.target_pod(back))[f"{MODEL}Icelake-Server"] == "true"
    pool.wait_migration(back)
    assert pool.vmi("web")["status"]["nodeName"] == source


def test_a_required_feature_and_no_node_with_the_source_cpu_is_refused(
    pool: Pool, guard: Guard
) -> None:
    source = pool.node("icelake")
    pool.node("cascadelake")
    pool.vm("web", "host-model", {"avx512f": "require"}, on=source)
    assert f"lacks {MODEL}Icelake-Server" in refused(pool)


def test_a_source_without_host_model_label_no_longer_fails_open(pool: Pool, guard: Guard) -> None:
    source = pool.node("icelake", labels={f"{HOST_MODEL}Icelake-Server": None})
    pool.node("icelake")
    pool.vm("web", "host-model", on=source)
    why = refused(pool)
    assert source in why
    assert "host-model-cpu.node.kubevirt.io" in why


@pytest.mark.parametrize("model", ["host-model", "host-passthrough"])
def test_an_added_vendor_no_longer_lets_a_guest_cross_vendors(
    pool: Pool, guard: Guard, model: str
) -> None:
    source = pool.node("icelake")
    pool.node("milan")
    pool.vm("web", model, on=source)
    why = refused(pool, {f"{VENDOR}AMD": "true"})
    assert f"{VENDOR}Intel" in why


def test_selectors_remembered_from_an_earlier_migration_that_no_node_meets_are_named(
    pool: Pool, guard: Guard
) -> None:
    first, second = pool.node("icelake"), pool.node("icelake")
    pool.vm("web", "host-model", on=first)
    pool.wait_migration(pool.migrate("web"))
    gone = "cpu-feature.node.kubevirt.io/gfni"
    required = "host-model-required-features.node.kubevirt.io/gfni"
    for node in (first, second):
        pool.change_node(node, {"metadata": {"labels": {gone: None, required: None}}})
    guard.wait_for_fact()
    why = refused(pool)
    assert f"lacks {gone}" in why
    assert "remember" in why
    assert "restart" in why


def test_host_passthrough_to_another_cpu_is_warned_about(pool: Pool, guard: Guard) -> None:
    source, other = pool.node("icelake"), pool.node("cascadelake")
    pool.vm("web", "host-passthrough", on=source)
    name = pool.migrate("web")
    told = pool.wait_event("VirtualMachineInstance", "web", "MigrationWarned")
    assert "host-passthrough" in told["message"]
    assert other in told["message"]
    pool.wait_migration(name)
    assert pool.vmi("web")["status"]["nodeName"] == other

"""Harvester: a running upgrade waits for the VMs to leave, so evacuations are not refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.bed.api import ApiError, path
from tests.testbed.bed.guard import SETTLED_AFTER, Guard
from tests.testbed.bed.pool import Pool
from tests.testbed.bed.testbed import TestBed

OVERLAY = "overlays/harvester"
GROUP = "harvesterhci.io"
DEFINITIONS = path("apiextensions.k8s.io/v1", "customresourcedefinitions")
UPGRADES = path(f"{GROUP}/v1beta1", "upgrades", "harvester-system")
EVACUATES = "kubevirt.io/evacuationMigration"


def prepare(bed: TestBed) -> None:
    """Make what Harvester has: its namespace, and the definition of its upgrades."""
    bed.api.create(path("v1", "namespaces"), {"metadata": {"name": "harvester-system"}})
    version = {
        "name": "v1beta1",
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        },
    }
    bed.api.create(
        DEFINITIONS,
        {
            "metadata": {"name": f"upgrades.{GROUP}"},
            "spec": {
                "group": GROUP,
                "names": {"kind": "Upgrade", "plural": "upgrades"},
                "scope": "Namespaced",
                "versions": [version],
            },
        },
    )
    bed.api.wait_until(lambda: _served(bed), 30, "upgrades are served")


def clean(bed: TestBed) -> None:
    """Take it back: the clusters of other tests are not Harvester's."""
    bed.api.delete(f"{DEFINITIONS}/upgrades.{GROUP}")
    bed.api.delete(path("v1", "namespaces", name="harvester-system"))


def _served(bed: TestBed) -> bool:
    try:
        return bed.api.find(UPGRADES) is not None
    except ApiError as error:
        # A new kind's storage takes a moment.
        if error.status != 429:
            raise
        return False


@pytest.fixture
def upgrade(pool: Pool) -> Iterator[str]:
    """The path of an upgrade that runs."""
    made = pool.api.create(
        UPGRADES,
        {
            "apiVersion": f"{GROUP}/v1beta1",
            "kind": "Upgrade",
            "metadata": {
                "name": "hvst-upgrade-1",
                "labels": {"harvesterhci.io/latestUpgrade": "true"},
            },
            "status": {"conditions": [{"type": "Completed", "status": "Unknown"}]},
        },
    )
    where = f"{UPGRADES}/{made['metadata']['name']}"
    yield where
    pool.api.delete(where)


def test_an_evacuation_is_let_through_while_an_upgrade_runs_and_refused_once_it_is_done(
    pool: Pool, guard: Guard, upgrade: str
) -> None:
    source = pool.node("icelake")
    pool.node("milan")
    pool.vm("web", on=source)
    pool.wait_until_older(SETTLED_AFTER)
    guard.wait_for_fact()

    drained = pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "2s"),
    )
    assert drained.returncode == 1
    told = pool.wait_event("VirtualMachineInstance", "web", "MigrationWarned")
    assert f"migration of VM {pool.namespace}/web from node {source}" in told["message"]
    assert "no other node can take it" in told["message"]
    (let_through,) = pool.migrations("web")
    assert let_through["metadata"]["annotations"][EVACUATES] == source
    pool.wait_migration(let_through["metadata"]["name"], "Scheduling")

    done = [{"type": "Completed", "status": "True"}]
    pool.api.patch(upgrade, {"status": {"conditions": done}})
    guard.wait_for_fact()
    # virt-controller still wants the node empty: once this one is gone, it tries another.
    migrations = pool.at("kubevirt.io/v1", "virtualmachineinstancemigrations")
    pool.api.delete(f"{migrations}/{let_through['metadata']['name']}")
    refused = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert "no other node can take it" in refused["message"]
    pool.api.wait_until_empty(migrations, 30)
    said = {
        (d["outcome"], d["origin"])
        for d in guard.decisions()
        if d["namespace"] == pool.namespace and d["outcome"] in ("refused", "warned")
    }
    assert said == {("warned", "evacuation"), ("refused", "evacuation")}

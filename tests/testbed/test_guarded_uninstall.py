"""A guard that died, in the installation that holds migrations up then: it can be taken away."""

from __future__ import annotations

import pytest

from tests.testbed.bed.api import ApiError
from tests.testbed.bed.guard import NAME, Guard
from tests.testbed.bed.pool import Pool
from tests.testbed.bed.testbed import TestBed

OVERLAY = "../tests/testbed/overlays/strict"
MIGRATIONS = "virtualmachineinstancemigrations"


def named_like_the_guard(bed: TestBed) -> list[str]:
    """Return the objects of every kind that are named after the guard, or carry its label."""
    kinds = bed.kubectl("api-resources", "--verbs=list", "--output=name")
    assert kinds.returncode == 0, kinds.stderr
    every = ",".join(kinds.stdout.split())
    found: set[str] = set()
    for selector in ("", f"app.kubernetes.io/name={NAME}"):
        listed = bed.kubectl("get", every, "-A", "--output=name", f"--selector={selector}")
        assert listed.returncode == 0, listed.stderr
        found.update(name for name in listed.stdout.split() if selector or NAME in name)
    return sorted(found)


def test_a_dead_guard_is_taken_away_by_its_manifests_and_nothing_waits_for_it(
    pool: Pool, guard: Guard
) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    assert f"namespace/{NAME}" in named_like_the_guard(pool.bed)

    guard.kill(*guard.replicas)
    pool.vm("started-while-it-is-dead", on=source)
    with pytest.raises(ApiError, match="failed calling webhook"):
        pool.migrate("web")

    guard.uninstall()
    assert named_like_the_guard(pool.bed) == []
    pool.vm("started-afterwards", on=source)
    pool.api.wait_until(lambda: may_migrate(pool), 30, "the API server asks no webhook any more")
    migration = pool.wait_migration(pool.migrate("web"))
    assert "migration-guard.io/decision" not in migration["metadata"].get("annotations", {})
    moved = pool.vmi("web")
    assert moved["status"]["nodeName"] == target
    # What stays: the model was chosen for the guest that still runs.
    assert moved["metadata"]["annotations"]["migration-guard.io/cpu-model"] == "host-model"


def may_migrate(pool: Pool) -> bool:
    """Try a migration out."""
    where = pool.at("kubevirt.io/v1", MIGRATIONS)
    try:
        pool.api.create(where, pool.migration_manifest("web"), dryRun="All")
    except ApiError as error:
        if "failed calling webhook" not in error.message:
            raise
        return False
    return True

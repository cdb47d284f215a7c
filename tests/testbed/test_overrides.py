"""Who may break the glass, and who may not (docs/rules.md, "Override")."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.bed.api import Api, ApiError, Object, path
from tests.testbed.bed.guard import SETTLED_AFTER, Guard
from tests.testbed.bed.pool import Pool, vm_manifest

OVERRIDE, BY = "migration-guard.io/override", "migration-guard.io/override-by"
VMIS, MIGRATIONS = "virtualmachineinstances", "virtualmachineinstancemigrations"
BOB = "bob"


@pytest.fixture
def bob(pool: Pool) -> Iterator[Api]:
    """Somebody who may do everything in the cluster, and is not entitled to override."""
    binding = {
        "metadata": {"name": pool.namespace},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin",
        },
        "subjects": [{"kind": "User", "name": BOB, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    bindings = path("rbac.authorization.k8s.io/v1", "clusterrolebindings")
    pool.api.create(bindings, binding)
    yield pool.api.acting_as(BOB)
    pool.api.delete(f"{bindings}/{pool.namespace}")


def stuck(pool: Pool, **annotations: str) -> None:
    source = pool.node("icelake")
    pool.node("milan")
    vm = vm_manifest("web")
    vm["spec"]["template"]["metadata"]["annotations"] = annotations
    pool.start(vm, on=source)
    pool.wait_until_older(SETTLED_AFTER)


def migrate(pool: Pool, user: Api, **annotations: str) -> Object:
    where = pool.at("kubevirt.io/v1", MIGRATIONS)
    return user.create(where, pool.migration_manifest("web", annotations=annotations))


def annotate(pool: Pool, user: Api, **annotations: str) -> Object:
    where = pool.at("kubevirt.io/v1", VMIS, "web")
    return user.patch(where, {"metadata": {"annotations": annotations}})


def refused(pool: Pool, user: Api, **annotations: str) -> None:
    with pytest.raises(ApiError, match="no other node can take it"):
        migrate(pool, user, **annotations)


def test_an_entitled_user_overrides_on_the_migration_and_the_log_says_who(
    pool: Pool, guard: Guard
) -> None:
    stuck(pool)
    migrate(pool, pool.api, **{OVERRIDE: "the node burns"})
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationOverridden")
    assert "no other node can take it" in event["message"]
    overridden = [d for d in guard.decisions() if d["outcome"] == "overridden"]
    assert overridden[-1]["overriddenBy"] == "admin"


def test_anybody_elses_override_is_ignored(pool: Pool, guard: Guard, bob: Api) -> None:
    stuck(pool)
    refused(pool, bob, **{OVERRIDE: "because I say so"})


def test_an_override_on_the_running_vmi_counts_when_its_author_is_entitled(
    pool: Pool, guard: Guard, bob: Api
) -> None:
    stuck(pool)
    noted = annotate(pool, bob, **{OVERRIDE: "because I say so"})["metadata"]["annotations"]
    assert noted.get(BY, "") == ""
    refused(pool, bob)
    noted = annotate(pool, pool.api, **{OVERRIDE: "the node burns"})["metadata"]
    assert noted["annotations"][BY] == f"admin@{noted['uid']}"
    guard.wait_for_fact()
    migrate(pool, bob)


def test_a_forged_author_is_emptied(pool: Pool, guard: Guard, bob: Api) -> None:
    stuck(pool)
    uid = pool.vmi("web")["metadata"]["uid"]
    forged = {OVERRIDE: "because I say so", BY: f"admin@{uid}"}
    noted = annotate(pool, bob, **forged)["metadata"]["annotations"]
    assert noted.get(BY, "") == ""
    guard.wait_for_fact()
    refused(pool, bob)


def test_an_override_carried_along_by_a_template_does_not_count(
    pool: Pool, guard: Guard, bob: Api
) -> None:
    stuck(pool, **{OVERRIDE: "for ever", BY: "admin@an-earlier-vmi"})
    assert OVERRIDE in pool.vmi("web")["metadata"]["annotations"]
    refused(pool, bob)


def test_what_the_guard_wrote_on_a_migration_stays(pool: Pool, guard: Guard, bob: Api) -> None:
    source = pool.node()
    pool.node()
    pool.vm("web", on=source, annotations={"testbed/migration-hold": "yes"})
    name = pool.migrate("web")
    where = pool.at("kubevirt.io/v1", MIGRATIONS, name)
    later = {"metadata": {"annotations": {"migration-guard.io/completion-deadline": "2099-01-01"}}}
    with pytest.raises(ApiError) as error:
        bob.patch(where, later)
    assert error.value.status == 403
    assert "migration-guard.io/completion-deadline" in error.value.message
    bob.patch(where, {"metadata": {"annotations": {"somebody/else": "is free to"}}})

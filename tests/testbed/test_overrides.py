"""Who may break the glass, and who may not (docs/rules.md, "Override")."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.testbed.bed.api import Api, ApiError, Object, path
from tests.testbed.bed.guard import SETTLED, Guard
from tests.testbed.bed.pool import Pool, vm_manifest
from tests.testbed.stuck import stuck

OVERRIDE, BY = "migration-guard.io/override", "migration-guard.io/override-by"
VMIS, MIGRATIONS = "virtualmachineinstances", "virtualmachineinstancemigrations"
BOB = "bob"
IGNORED = f'Warning: {OVERRIDE} is ignored: "{BOB}" is not among override.users or override.groups'
NOTHING = (
    f"Warning: {OVERRIDE} does nothing on a VM or its template: "
    "write it on the migration, or on the running VMI"
)


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


@pytest.fixture
def migrations_are_warned_about(guard: Guard) -> Iterator[None]:
    """Let no migration be refused."""
    guard.configure(f"{SETTLED}rules: {{incompatible-target: {{mode: warn}}}}\n")
    guard.wait_for_fact()
    yield
    guard.configure(SETTLED)
    guard.wait_for_fact()


def by_kubectl(pool: Pool, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl as Bob, in the pool's namespace."""
    return pool.bed.kubectl("--as", BOB, "-n", pool.namespace, *arguments, stdin=stdin)


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
    assert event["message"].endswith('Overridden by "admin": the node burns')
    overridden = [d for d in guard.decisions() if d["outcome"] == "overridden"]
    assert overridden[-1]["overriddenBy"] == "admin"


def test_anybody_elses_override_is_ignored(pool: Pool, guard: Guard, bob: Api) -> None:
    stuck(pool)
    refused(pool, bob, **{OVERRIDE: "because I say so"})


def test_whoever_writes_an_override_that_does_nothing_is_warned(
    pool: Pool, guard: Guard, bob: Api, migrations_are_warned_about: None
) -> None:
    stuck(pool)
    manifest = pool.migration_manifest("web", annotations={OVERRIDE: "because I say so"})
    made = by_kubectl(pool, "create", "-f", "-", stdin=json.dumps(manifest))
    assert made.returncode == 0, made.stderr
    assert IGNORED in made.stderr
    assert "no other node can take it" in made.stderr

    mine = f"{OVERRIDE}=because I say so"
    for kind, said in (("vmi", IGNORED), ("vm", NOTHING)):
        annotated = by_kubectl(pool, "annotate", kind, "web", mine)
        assert annotated.returncode == 0, annotated.stderr
        assert said in annotated.stderr
    in_template = {"spec": {"template": {"metadata": {"annotations": {OVERRIDE: "for ever"}}}}}
    patched = by_kubectl(pool, "patch", "vm", "web", "--type=merge", "-p", json.dumps(in_template))
    assert patched.returncode == 0, patched.stderr
    assert NOTHING in patched.stderr
    another = vm_manifest("another")
    another["metadata"]["annotations"] = {OVERRIDE: "for ever"}
    another["spec"]["runStrategy"] = "Halted"
    applied = by_kubectl(pool, "apply", "-f", "-", stdin=json.dumps(another))
    assert applied.returncode == 0, applied.stderr
    assert NOTHING in applied.stderr


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


def test_an_author_that_is_forged_on_a_migration_is_emptied_and_cannot_be_written_later(
    pool: Pool, guard: Guard, bob: Api
) -> None:
    source = pool.node()
    pool.node()
    pool.vm("web", on=source, annotations={"testbed/migration-hold": "yes"})
    forged = {BY: f"admin@{pool.vmi('web')['metadata']['uid']}"}
    made = migrate(pool, bob, **forged)["metadata"]
    assert made["annotations"][BY] == ""
    with pytest.raises(ApiError) as error:
        bob.patch(
            pool.at("kubevirt.io/v1", MIGRATIONS, made["name"]),
            {"metadata": {"annotations": forged}},
        )
    assert error.value.status == 403
    assert BY in error.value.message


def test_an_override_whose_author_or_reason_somebody_else_changes_no_longer_counts(
    pool: Pool, guard: Guard, bob: Api
) -> None:
    stuck(pool)
    for change in ({OVERRIDE: "because I say so"}, {BY: "admin@another-vmi"}):
        noted = annotate(pool, pool.api, **{OVERRIDE: "the node burns"})["metadata"]
        assert noted["annotations"][BY] == f"admin@{noted['uid']}"
        noted = annotate(pool, bob, **change)["metadata"]
        assert noted["annotations"][BY] == ""
        annotate(pool, pool.api, **{OVERRIDE: ""})
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

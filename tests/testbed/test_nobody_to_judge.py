"""failurePolicy Fail on migrations, and nobody there who could judge them."""

from __future__ import annotations

import json

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.load import Outcome, Question, SteadyLoad
from tests.testbed.bed.pool import KUBEVIRT, WITHIN, Pool
from tests.testbed.bed.testbed import TestBed

OVERLAY = "overlays/strict"
DATABASE = True
WORKLOAD_UPDATE = "kubevirt.io/workloadUpdateMigration"
UNANSWERED = 'failed calling webhook "migration-create.validate.migration-guard.io"'


def update_of(pool: Pool, vmi: str) -> str:
    """Wait for the migration that KubeVirt's workload updater makes of a VM; return its name."""
    found = pool.api.wait_for(
        pool.at(KUBEVIRT, "virtualmachineinstancemigrations"),
        lambda obj: (
            obj["spec"]["vmiName"] == vmi
            and WORKLOAD_UPDATE in obj["metadata"].get("annotations", {})
        ),
        WITHIN,
        f"a workload update of {vmi}",
    )
    name: str = found["metadata"]["name"]
    return name


def test_a_workload_update_succeeds_with_both_replicas_dead(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    source, target = pool.node(), pool.node()
    pool.vm("web", on=source)
    with guard.dead():
        update = {"workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}}
        pool.api.patch(kubevirt_cr, {"spec": update})
        kubevirt = pool.bed.kubevirt
        assert kubevirt is not None
        with kubevirt.new_launcher_image("registry.test/virt-launcher:2"):
            pool.wait_migration(update_of(pool, "web"))
            assert pool.vmi("web")["status"]["nodeName"] == target
            # The old image makes it outdated once more.
            pool.api.patch(kubevirt_cr, {"spec": {"workloadUpdateStrategy": None}})


def test_with_both_replicas_dead_migrations_are_refused_and_vms_start(
    testbed: TestBed, guard: Guard, questions: tuple[Question, Question], pool: Pool
) -> None:
    source, _ = pool.node(), pool.node()
    pool.vm("web", on=source)
    with SteadyLoad(testbed.api, questions) as load:
        with guard.dead():
            manifest = json.dumps(pool.migration_manifest("web"))
            ran = testbed.kubectl("create", "-n", pool.namespace, "-f", "-", stdin=manifest)
            assert ran.returncode == 1
            assert UNANSWERED in ran.stderr
            ran = testbed.virtctl("migrate", "web", "--namespace", pool.namespace)
            assert ran.returncode == 1
            assert UNANSWERED in ran.stderr
            pool.vm("new", on=source)
        load.settle()
    assert {answer.outcome for answer in load.not_right()} == {Outcome.REFUSED}
    pool.wait_migration(pool.migrate("web"))

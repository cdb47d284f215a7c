"""A migration that overruns its deadline on a guarded cluster is ended, and all can see why."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.testbed.bed.api import Object
from tests.testbed.bed.guard import SETTLED, Guard
from tests.testbed.bed.pool import HOLD, KUBEVIRT, Pool
from tests.testbed.held import MIGRATIONS, allowing, gone, held_migration
from tests.testbed.test_guarded_audit import audit, decision_in, listed, wait_kept
from webhook.review.requester import GUARD

DEADLINE = "migration-guard.io/completion-deadline"
TIMEOUT = "migration-guard.io/completion-timeout"


def state_of(vmi: Object) -> Object:
    found: Object = vmi["status"]["migrationState"]
    return found


def test_the_deadline_counts_from_the_start_of_the_copying(pool: Pool, guard: Guard) -> None:
    name = held_migration(pool)
    started = datetime.fromisoformat(state_of(pool.vmi("web"))["startTimestamp"])
    pool.api.wait_for(
        pool.at(KUBEVIRT, MIGRATIONS),
        lambda migration: (
            migration["metadata"]["name"] == name
            and datetime.fromisoformat(migration["metadata"]["annotations"][DEADLINE])
            == started + timedelta(seconds=800)
        ),
        30,
        "the deadline is true",
    )


def test_a_migration_that_overruns_is_ended_and_found_by_its_id_everywhere(
    pool: Pool, guard: Guard
) -> None:
    guard.configure(allowing(4))
    guard.wait_for_fact()
    name = held_migration(pool)
    annotations = pool.api.get(pool.at(KUBEVIRT, MIGRATIONS, name))["metadata"]["annotations"]
    assert annotations[TIMEOUT] == "4s"
    pool.api.wait_until(lambda: gone(pool, name), 60, "the migration is ended")

    vmi = pool.vmi("web")
    assert vmi["status"]["phase"] == "Running"
    assert vmi["status"]["nodeName"] == pool.nodes[0]
    assert state_of(vmi)["abortStatus"] == "Succeeded"
    ended = datetime.fromisoformat(state_of(vmi)["endTimestamp"])
    ran = ended - datetime.fromisoformat(state_of(vmi)["startTimestamp"])
    assert ran >= timedelta(seconds=4)

    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationAborted")
    assert f"migration {name} of VM {pool.namespace}/web from node" in event["message"]
    assert "in the 4 s allowed (1 GiB x 4 s/GiB)" in event["message"]
    decision = decision_in(event["message"])
    of_migration = pool.wait_event("VirtualMachineInstanceMigration", name, "MigrationAborted")
    assert of_migration["message"] == event["message"]
    (logged,) = [d for d in guard.decisions() if d["outcome"] == "aborted"]
    assert (logged["decision"], logged["operation"]) == (decision, "DELETE")

    wait_kept(pool, guard, decision)
    (record,) = listed(guard, "--outcome", "aborted")
    assert (record["decision"], record["rule"]) == (decision, "completion-deadline")
    assert (record["vm"], record["name"]) == (f"{pool.namespace}/web", name)
    assert (record["source"], record["user"]) == (pool.nodes[0], GUARD)
    status, shown = audit(guard, "show", decision)
    assert status == 0
    assert [item["message"] for item in shown["items"]] == [event["message"]]

    lines = guard.replicas[0].ask("/metrics")[1].splitlines()
    aborted = 'migration_guard_decisions_total{mode="enforce",outcome="aborted",rule="'
    assert [line for line in lines if line.startswith(aborted)]
    assert "migration_guard_leader 1.0" in lines


def test_another_migration_of_the_vm_can_follow(pool: Pool, guard: Guard) -> None:
    guard.configure(allowing(4))
    guard.wait_for_fact()
    name = held_migration(pool)
    pool.api.wait_until(lambda: gone(pool, name), 60, "the migration is ended")
    where = pool.at(KUBEVIRT, "virtualmachineinstances", "web")
    pool.api.patch(where, {"metadata": {"annotations": {HOLD: None}}})
    guard.configure(SETTLED)
    guard.wait_for_fact()
    again = pool.migrate("web")
    pool.wait_migration(again)
    assert pool.vmi("web")["status"]["nodeName"] == pool.nodes[1]


def test_an_override_lets_a_migration_run_on(pool: Pool, guard: Guard) -> None:
    name = held_migration(pool)
    where = pool.at(KUBEVIRT, "virtualmachineinstances", "web")
    override = {"migration-guard.io/override": "the copy is slow today"}
    pool.api.patch(where, {"metadata": {"annotations": override}})
    # The time it was given is 800 s; as if it had been made with a shorter one.
    short = {"metadata": {"annotations": {TIMEOUT: "1s"}}}
    pool.api.patch(pool.at(KUBEVIRT, MIGRATIONS, name), short)
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationOverridden")
    assert "has overrun its deadline" in event["message"]
    assert "the copy is slow today" in event["message"]
    assert not gone(pool, name)
    assert "deletionTimestamp" not in pool.api.get(pool.at(KUBEVIRT, MIGRATIONS, name))["metadata"]

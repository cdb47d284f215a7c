"""Controllers that try again and again, and what others meet meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from tests.testbed.bed.guard import Guard
from tests.testbed.bed.load import SteadyLoad, movable_and_stuck
from tests.testbed.bed.measures import total
from tests.testbed.bed.pool import Pool, pool_name
from tests.testbed.evacuations import Evacuation
from tests.testbed.storms import Storm

SECONDS = 15.0


def refusals(guard: Guard) -> list[dict[str, Any]]:
    """Read the refusals of the audit."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "webhook.cli", "audit", "list", "--outcome", "refused"),
            *("--audit-dir", guard.audit_folder, "-o", "json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(ran.stdout)["items"]
    return found


def one_entry_for_each_refusal(pool: Pool, guard: Guard, storm: Storm) -> None:
    asked = [d for d in guard.decisions() if d["namespace"] == pool.namespace]
    ids = [d["decision"] for d in asked if d["outcome"] == "refused"]
    kept = [record for record in refusals(guard) if record["namespace"] == pool.namespace]
    vms = [record["vm"].removeprefix(f"{pool.namespace}/") for record in kept]
    assert set(ids) <= {record["decision"] for record in kept}
    assert len(set(vms)) == len(vms) < len(ids)
    assert set(vms) <= set(storm.evacuated)
    for vm in vms:
        assert events(pool, vm, "MigrationRefused") == 1


def events(pool: Pool, vm: str, reason: str) -> int:
    """Wait for an Event about a VMI, and return how many there are of its kind."""
    pool.wait_event("VirtualMachineInstance", vm, reason)
    told = pool.events("VirtualMachineInstance", vm)
    return [event["reason"] for event in told].count(reason)


def test_honest_reviews_are_answered_rightly_beside_a_storm_and_its_retries_are_one_entry_each(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    storm = Storm(pool, evacuated=10, updated=10)
    calm = Pool(pool.bed, pool_name("calm"))
    calm.open()
    try:
        with storm.prepared(), SteadyLoad(pool.api, movable_and_stuck(calm)) as load:
            with storm.blowing(SECONDS):
                time.sleep(SECONDS)
            assert load.not_right() == []
        one_entry_for_each_refusal(pool, guard, storm)
    finally:
        # Not sooner: another set of nodes makes another refusal.
        calm.close()
    for name in storm.updated:
        assert events(pool, name, "MigrationWarned") == 1
    metrics = guard.replicas[0].ask("/metrics")[1]
    answered = total(metrics, "migration_guard_reviews_total")
    assert total(metrics, "migration_guard_reviews_total", code="200") == answered > 0


def test_vms_that_can_move_leave_a_drained_node_past_those_that_cannot(
    pool: Pool, guard: Guard
) -> None:
    evacuation = Evacuation(pool, stuck=6, movable=2)
    evacuation.prepare()
    # The controller tries again at each heartbeat; between two of them its back-off may be long.
    ended = evacuation.run(seconds=120, heartbeat=(0.5, 1.5))
    assert sorted(ended.left) == evacuation.movable
    # None of the stuck ones was let through to hold a slot.
    assert evacuation.attempts() == len(evacuation.movable)

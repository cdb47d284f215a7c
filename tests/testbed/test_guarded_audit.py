"""One refusal, found by its id wherever somebody may look for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from tests.testbed.bed.guard import SETTLED_AFTER, Guard
from tests.testbed.bed.pool import Pool

CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"


def stuck(pool: Pool) -> str:
    source = pool.node("icelake")
    pool.node("milan")
    pool.vm("web", on=source)
    pool.wait_until_older(SETTLED_AFTER)
    return source


def audit(guard: Guard, *arguments: str) -> tuple[int, Any]:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "webhook.cli", "audit", *arguments),
            *("--audit-dir", guard.audit_folder, "-o", "json"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else ran.stderr


def test_one_id_stands_in_message_log_event_and_audit(pool: Pool, guard: Guard) -> None:
    stuck(pool)
    ran = pool.bed.virtctl("migrate", "web", "--namespace", pool.namespace)
    found = re.search(r"Decision ([0-9a-f-]{36})", ran.stderr)
    assert found is not None
    decision = found[1]
    assert decision in {d["decision"] for d in guard.decisions() if d["outcome"] == "refused"}
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert decision in event["message"]
    described = pool.bed.kubectl("describe", "vmi", "web", "--namespace", pool.namespace)
    assert decision in described.stdout
    status, shown = audit(guard, "show", decision)
    assert status == 0, shown
    assert f"{pool.namespace}/web" in json.dumps(shown)


def test_an_evacuation_that_is_tried_again_and_again_is_one_record_with_a_count(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
    pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "4s"),
    )

    def refusals() -> list[dict[str, Any]]:
        _, listed = audit(guard, "list", "--outcome", "refused", "--vm", f"{pool.namespace}/web")
        items: list[dict[str, Any]] = listed["items"]
        return items

    pool.api.wait_until(
        lambda: bool(refusals()) and refusals()[0]["count"] > 1, 30, "a refusal is repeated"
    )
    (record,) = refusals()
    assert (record["origin"], record["user"]) == ("evacuation", CONTROLLER)

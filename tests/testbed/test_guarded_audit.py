"""One refusal, found by its id wherever somebody may look for it; what is only tried out is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import Any

from tests.testbed.bed.guard import SETTLED_AFTER, Guard
from tests.testbed.bed.kubevirt import CR
from tests.testbed.bed.pool import Pool
from tests.testbed.stuck import stuck

API_SERVER = "system:serviceaccount:kubevirt:kubevirt-apiserver"
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
MIGRATIONS = "virtualmachineinstancemigrations"
RETRIES_FOR = int(os.environ.get("EVACUATION_RETRIES_FOR", "0"))
"""Seconds for which virt-controller is let try an evacuation again; 0: a few tries."""


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


def listed(guard: Guard, *arguments: str) -> list[dict[str, Any]]:
    """Return the records that a search finds."""
    status, found = audit(guard, "list", *arguments)
    assert status == 0, found
    items: list[dict[str, Any]] = found["items"]
    return items


def wait_kept(pool: Pool, guard: Guard, decision: str) -> None:
    """Wait until a decision is in the database; those before it are there by then."""
    pool.api.wait_until(
        lambda: decision in [r["decision"] for r in listed(guard)],
        30,
        "the decision is in the audit",
    )


def decision_in(text: str) -> str:
    """Return the decision id that a message ends with."""
    found = re.search(r"Decision ([0-9a-f-]{36})", text)
    assert found is not None, text
    return found[1]


def noted_by_the_api_server(pool: Pool) -> list[dict[str, Any]]:
    """Return what its audit log tells of migrations created in the pool."""
    lines = pool.bed.plane.audit_log.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return [
        event
        for event in events
        if event["verb"] == "create"
        and event["objectRef"]["resource"] == MIGRATIONS
        and event["objectRef"]["namespace"] == pool.namespace
    ]


def test_one_id_stands_in_message_logs_event_and_audit(pool: Pool, guard: Guard) -> None:
    stuck(pool)
    ran = pool.bed.virtctl("migrate", "web", "--namespace", pool.namespace)
    decision = decision_in(ran.stderr)
    assert decision in {d["decision"] for d in guard.decisions() if d["outcome"] == "refused"}
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert decision in event["message"]
    described = pool.bed.kubectl("describe", "vmi", "web", "--namespace", pool.namespace)
    assert decision in described.stdout

    pool.api.wait_until(
        lambda: bool(noted_by_the_api_server(pool)), 30, "the API server has noted the request"
    )
    (noted,) = noted_by_the_api_server(pool)
    assert (noted["user"]["username"], noted["responseStatus"]["code"]) == (API_SERVER, 403)
    for webhook in ("mutate", "validate"):
        where = f"migration-create.{webhook}.migration-guard.io"
        assert noted["annotations"][f"{where}/decision"] == decision
    assert noted["annotations"][f"{where}/outcome"] == "refused"
    assert noted["annotations"][f"{where}/rule"] == "incompatible-target"

    status, shown = audit(guard, "show", decision)
    assert status == 0, shown
    assert f"{pool.namespace}/web" in json.dumps(shown)


def test_dry_runs_of_migrations_are_answered_alike_and_leave_neither_record_nor_event(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
    pool.node("cascadelake")
    pool.vm("passthrough", "host-passthrough", on=source)
    pool.wait_until_older(SETTLED_AFTER)

    def create(vmi: str, *how: str) -> subprocess.CompletedProcess[str]:
        manifest = json.dumps(pool.migration_manifest(vmi))
        return pool.bed.kubectl(
            "create", "--namespace", pool.namespace, "-f", "-", *how, stdin=manifest
        )

    refusal = f"migration of VM {pool.namespace}/web from node {source} refused"
    tried = create("web", "--dry-run=server")
    assert tried.returncode == 1
    assert refusal in tried.stderr
    by_virtctl = pool.bed.virtctl("migrate", "web", "-n", pool.namespace, "--dry-run")
    assert by_virtctl.returncode == 1
    assert refusal in by_virtctl.stderr
    allowed = create("passthrough", "--dry-run=server")
    assert allowed.returncode == 0, allowed.stderr
    assert "created (server dry run)" in allowed.stdout
    assert f"Warning: migration of VM {pool.namespace}/passthrough" in allowed.stderr
    assert "no other CPU is alike" in allowed.stderr
    assert pool.api.items(pool.at("kubevirt.io/v1", MIGRATIONS)) == []
    logged = [d for d in guard.decisions() if d["namespace"] == pool.namespace and d["dryRun"]]
    said = [d["outcome"] for d in logged if d["outcome"] != "changed"]
    assert said == ["refused", "refused", "warned"]

    # Records and Events are written in order: once those of a real one are there, none of the dry
    # runs' is still to come.
    real = create("web")
    assert real.returncode == 1
    event = pool.wait_event("VirtualMachineInstance", "web", "MigrationRefused")
    assert (event["count"], decision_in(event["message"])) == (1, decision_in(real.stderr))
    told = pool.events("VirtualMachineInstance", "passthrough")
    assert not [event for event in told if event["reason"].startswith("Migration")]
    wait_kept(pool, guard, decision_in(real.stderr))
    kept = listed(guard, "--namespace", pool.namespace)
    assert [
        (r["decision"], r["count"]) for r in kept if r["kind"] == "VirtualMachineInstanceMigration"
    ] == [(decision_in(real.stderr), 1)]
    status, said = audit(guard, "show", decision_in(tried.stderr))
    assert status == 1, said


def test_a_dry_run_of_a_change_of_the_kubevirt_cr_leaves_neither_record_nor_event(
    pool: Pool, guard: Guard, kubevirt_cr: str
) -> None:
    left_out = pool.node("milan")
    pool.node("icelake")
    guard.wait_for_fact()

    def choose(model: str, *how: str) -> subprocess.CompletedProcess[str]:
        change = {"spec": {"configuration": {"cpuModel": model}}}
        return pool.bed.kubectl(
            *("patch", "kubevirt", "kubevirt", "--namespace", "kubevirt", "--type", "merge"),
            *("--patch", json.dumps(change), *how),
        )

    some = choose("Cascadelake-Server", "--dry-run=server")
    assert some.returncode == 0, some.stderr
    assert "Warning: " in some.stderr
    assert left_out in some.stderr
    tried = choose("Nowhere-v1", "--dry-run=server")
    assert tried.returncode == 1
    assert "denied the request" in tried.stderr
    assert '"Nowhere-v1"' in tried.stderr
    assert "configuration" not in pool.api.get(CR)["spec"]

    real = choose("Nowhere-v1")
    assert real.returncode == 1
    wait_kept(pool, guard, decision_in(real.stderr))
    kept = listed(guard, "--rule", "cluster-cpu-model")
    assert [(r["decision"], r["count"], r["outcome"]) for r in kept] == [
        (decision_in(real.stderr), 1, "refused")
    ]
    events = "/api/v1/namespaces/kubevirt/events"
    event = pool.api.wait_for(
        events, lambda event: "Nowhere-v1" in event["message"], 30, "it is told on the KubeVirt CR"
    )
    assert (event["count"], decision_in(event["message"])) == (1, decision_in(real.stderr))
    told = pool.api.items(events, fieldSelector="involvedObject.kind=KubeVirt")
    assert not [event for event in told if left_out in event["message"]]


def test_an_evacuation_that_is_tried_again_and_again_is_one_record_with_a_count(
    pool: Pool, guard: Guard
) -> None:
    source = stuck(pool)
    drained = pool.bed.kubectl(
        *("drain", source, "--delete-emptydir-data", "--force", "--ignore-daemonsets"),
        *("--pod-selector", "kubevirt.io=virt-launcher", "--timeout", "2s"),
    )
    assert drained.returncode == 1

    def refusals() -> list[dict[str, Any]]:
        return listed(guard, "--outcome", "refused", "--vm", f"{pool.namespace}/web")

    def all_are_counted() -> bool:
        tries = len(noted_by_the_api_server(pool))
        return tries > 3 and [record["count"] for record in refusals()] == [tries]

    # The drain has given up; virt-controller has not. The database is a little behind.
    began = time.monotonic()
    pool.api.wait_until(
        lambda: time.monotonic() - began >= RETRIES_FOR and all_are_counted(),
        RETRIES_FOR + 60,
        "all tries are counted in one record",
    )
    (record,) = refusals()
    assert (record["origin"], record["user"]) == ("evacuation", CONTROLLER)
    noted = noted_by_the_api_server(pool)
    ids = {e["annotations"]["migration-create.validate.migration-guard.io/decision"] for e in noted}
    assert ids == {record["decision"]}
    (event,) = [
        event
        for event in pool.events("VirtualMachineInstance", "web")
        if event["reason"] == "MigrationRefused"
    ]
    assert record["decision"] in event["message"]
    print(
        f"tried {len(noted)} times: one record, count {record['count']}, from "
        f"{record['firstTime']} to {record['lastTime']}; one Event, count {event['count']}"
    )

"""Deadlines of migrations that run, on a real API server: made true, and enforced."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.live.moving import CONFIGURATION, KUBEVIRT, NOTES, RUNNING_FOR, Watch
from webhook.cluster.connection import connect
from webhook.control.deadlines import PAUSE_SECONDS, Standing
from webhook.policy.loading import load
from webhook.review.decision import Outcome


def test_the_deadline_is_made_true_when_the_copying_has_started(moving, watch) -> None:
    vm = moving()
    found = watch(ahead=60.0)
    standing = found.look()
    ends = vm.started + timedelta(seconds=800)
    assert standing == Standing(running=1, overdue=0, next_end=ends)
    notes = vm.migration["metadata"]["annotations"]
    assert notes[f"{NOTES}completion-timeout"] == "800s"
    assert notes[f"{NOTES}completion-basis"].startswith("1 GiB x 800 s/GiB")
    assert datetime.fromisoformat(notes[f"{NOTES}completion-deadline"]) == ends
    version = vm.migration["metadata"]["resourceVersion"]
    found.look()
    assert vm.migration["metadata"]["resourceVersion"] == version
    assert (found.kept, found.logged, vm.deleted) == ([], [], False)


def test_what_overruns_is_kept_and_then_deleted_once(moving, watch) -> None:
    vm = moving()
    found = watch()
    asked_before_it_was_kept = []
    found.while_kept = lambda: asked_before_it_was_kept.append(vm.deleted)
    assert found.look().overdue == 1
    assert vm.deleted
    assert asked_before_it_was_kept == [False]
    found.look()
    (decision,) = found.kept
    assert (decision.outcome, decision.allowed) == (Outcome.ABORTED, False)
    assert "migration move of VM default/vm from node a to node b aborted" in decision.message
    vm.ends()


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ("maxMode: audit", Outcome.AUDITED),
        ("rules: {completion-deadline: {mode: warn}}", Outcome.WARNED),
        ("deadline: {mode: kubevirt}", Outcome.WARNED),
    ],
)
def test_a_mode_that_refuses_nobody_tells_once_and_ends_nothing(
    moving, watch, settings: str, outcome: Outcome
) -> None:
    vm = moving()
    found = watch(settings)
    for _ in range(3):
        found.look()
        found.seconds += PAUSE_SECONDS
    assert [decision.outcome for decision in found.kept] == [outcome]
    assert not vm.deleted


def test_an_overrun_that_was_only_told_is_ended_once_the_settings_say_so(moving, watch) -> None:
    vm = moving()
    text = ["maxMode: audit"]
    found = watch()
    found._deadlines._configuration = lambda: load(text[0], "test")
    found.look()
    assert not vm.deleted
    text[0] = ""
    found.look()
    assert [d.outcome for d in found.kept] == [Outcome.AUDITED, Outcome.ABORTED]
    assert len({d.decision_id for d in found.kept}) == 2
    assert vm.deleted


@pytest.mark.parametrize(
    "change", [{"completed": True}, {"mode": "PostCopy"}, {"abortRequested": True}], ids=str
)
def test_facts_that_lag_behind_end_nothing(moving, watch, server, change) -> None:
    vm = moving()
    found = watch()
    old = found.facts()
    vm.state(**change)
    late = Watch(connect(server.kubeconfig), lambda: old)
    late.look()
    assert not vm.deleted
    assert [d.outcome for d in late.kept] == [Outcome.WARNED] * ("mode" in change)


def test_a_migration_made_anew_under_the_name_is_another_one(moving, watch, server) -> None:
    vm = moving()
    found = watch()
    old = found.facts()
    server.remove(vm.made)
    vm.ends()
    vm.make()
    for ahead in (RUNNING_FOR, 60.0):
        Watch(connect(server.kubeconfig), lambda: old, ahead=ahead).look()
    assert not vm.deleted
    assert "annotations" not in vm.migration["metadata"]


def test_a_replica_that_does_not_lead_any_more_ends_nothing(moving, watch) -> None:
    vm = moving()
    found = watch()
    found.leads = lambda: False
    found.look()
    assert (found.kept, vm.deleted) == ([], False)
    # It may lose the lease at any moment, also when all is ready.
    leads = [True, False]
    found.leads = lambda: leads.pop(0)
    found.look()
    assert (found.kept, vm.deleted) == ([], False)


@pytest.mark.parametrize("ahead", [60.0, RUNNING_FOR], ids=["runs", "overdue"])
def test_a_guard_that_is_switched_off_writes_and_ends_nothing(
    moving, watch, server, ahead: float
) -> None:
    vm = moving()
    server.api.delete(f"{CONFIGURATION}/migration-guard")
    found = watch(ahead=ahead)
    assert found.look().switched_off
    assert (found.kept, found.logged, vm.deleted) == ([], [], False)
    assert "annotations" not in vm.migration["metadata"]
    server.api.create(CONFIGURATION, {"metadata": {"name": "migration-guard"}})
    found.seconds += PAUSE_SECONDS
    assert not found.look().switched_off
    assert "annotations" in vm.migration["metadata"] or vm.deleted


def test_a_migration_that_cannot_be_read_keeps_no_other_from_its_end(moving, watch, server) -> None:
    vm = moving()
    other = server.add(
        {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": "a-first", "namespace": "default"},
            "spec": {"vmiName": "odd"},
            "status": {"phase": "Running"},
        }
    )
    odd = {"migrationUid": other["metadata"]["uid"], "startTimestamp": "yesterday"}
    server.add(
        {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "odd", "namespace": "default"},
            "spec": {},
            "status": {"phase": "Running", "nodeName": "a", "migrationState": odd},
        }
    )
    found = watch()
    found.look()
    assert vm.deleted

"""Migrations that run: until when they may, and what becomes of one that overruns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.review.asking import UPGRADE, Cluster, kubevirt, migration, new_id, node, vmi
from webhook.model.fields import InvalidObject
from webhook.model.migration import Migration
from webhook.review.decision import Decision, Outcome
from webhook.review.overruns import (
    RunningMigration,
    decide_not_ended,
    decide_overrun,
    running_migration,
)

STARTED = datetime.fromisoformat("2026-11-27T10:00:00Z")
CREATED = "2026-11-27T09:00:00Z"
NOTES = "migration-guard.io/"
OVERRIDE = {f"{NOTES}override": "it must move", f"{NOTES}override-by": "root@uid-web"}
EVACUATION = "kubevirt.io/evacuationMigration"


def moving(**state: Any) -> dict[str, Any]:
    """Return a VMI of 8 GiB that migration uid-m copies from node a to node b."""
    copied = vmi()
    copied["status"]["migrationState"] = {
        "migrationUid": "uid-m",
        "startTimestamp": "2026-11-27T10:00:00Z",
        "sourceNode": "a",
        "targetNode": "b",
        "mode": "PreCopy",
        **state,
    }
    return copied


def under_way(notes: dict[str, str] | None = None, **metadata: str) -> dict[str, Any]:
    """Return the migration that copies it."""
    made = migration(uid="uid-m", **(notes or {}))
    made["metadata"] |= {"creationTimestamp": CREATED, **metadata}
    made["status"] = {"phase": "Running"}
    return made


def look(
    vm: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    configuration: str = "",
    seen: datetime | None = None,
    kv: dict[str, Any] | None = None,
    more: tuple[dict[str, Any], ...] = (),
) -> RunningMigration | None:
    """Look at the migration in a cluster of two nodes."""
    vm, run, cr = vm or moving(), run or under_way(), kubevirt()
    cr["spec"]["configuration"]["migrations"] = kv or {}
    cluster = Cluster(node("a"), node("b"), cr, vm, run, *more, configuration=configuration)
    found = cluster.facts.vmis.get("prod/web")
    return running_migration(
        Migration.from_object(run), found, cluster.facts, cluster.configuration, seen
    )


def running(*args: Any, **kwargs: Any) -> RunningMigration:
    found = look(*args, **kwargs)
    assert found is not None
    return found


def decided(*args: Any, **kwargs: Any) -> Decision:
    return decide_overrun(running(*args, **kwargs), new_id())


def test_the_time_counts_from_the_start_of_the_copying() -> None:
    found = running()
    assert found.ends == STARTED + timedelta(seconds=6400)
    assert not found.overdue(found.ends - timedelta(seconds=1))
    assert found.overdue(found.ends)


def test_the_provisional_deadline_is_made_true() -> None:
    provisional = {
        f"{NOTES}completion-timeout": "6400s",
        f"{NOTES}completion-basis": "8 GiB x 800 s/GiB",
        f"{NOTES}completion-deadline": "2026-11-27T10:46:40Z",
    }
    found = running(run=under_way(provisional))
    true = {**provisional, f"{NOTES}completion-deadline": "2026-11-27T11:46:40Z"}
    assert found.unwritten == true
    assert running(run=under_way(true)).unwritten == {}


def test_the_time_written_at_creation_holds_whatever_the_settings_are_now() -> None:
    given = {f"{NOTES}completion-timeout": "60s", f"{NOTES}completion-basis": "as it was"}
    found = running(run=under_way(given), configuration="deadline: {secondsPerGiB: 5}")
    assert (found.allowed.seconds, found.allowed.basis) == (60, "as it was")


@pytest.mark.parametrize("written", ["", "soon", "-5s", "6400", "9" * 11 + "s", "\uff11s"])
def test_a_migration_without_a_time_gets_the_one_it_would_have_been_given(written: str) -> None:
    found = running(run=under_way({f"{NOTES}completion-timeout": written}))
    assert found.allowed.seconds == 6400
    assert found.unwritten[f"{NOTES}completion-timeout"] == "6400s"


@pytest.mark.parametrize(
    "state",
    [
        {"migrationUid": "uid-of-an-earlier-one"},
        {"startTimestamp": None},
        {"completed": True},
        {"failed": True},
        # virt-handler says so some time before "completed": the guest is on the target.
        {"endTimestamp": "2026-11-27T10:30:00Z"},
        {"targetNodeDomainReadyTimestamp": "2026-11-27T10:30:00Z"},
    ],
    ids=lambda state: next(iter(state)),
)
def test_what_has_not_started_or_has_ended_has_no_deadline_to_keep(state: dict[str, Any]) -> None:
    assert look(moving(**state)) is None


def test_a_migration_whose_vmi_is_not_known_is_left_alone() -> None:
    other = moving()
    other["metadata"]["name"] = "other"
    assert look(other) is None


@pytest.mark.parametrize("forged", ["0s", "9999999999s"])
def test_a_time_that_is_no_limit_is_counted_again(forged: str) -> None:
    found = running(run=under_way({f"{NOTES}completion-timeout": forged}))
    assert found.allowed.seconds == 6400


def test_no_limit_is_none() -> None:
    free = "deadline: {mode: kubevirt}"
    assert look(kv={"completionTimeoutPerGiB": 0}, configuration=free) is None
    guest = moving()
    del guest["spec"]["domain"]["memory"]
    assert look(guest) is None


def test_a_start_before_the_creation_is_a_wrong_clock_and_counts_from_the_creation() -> None:
    found = running(run=under_way(creationTimestamp="2026-11-27T10:30:00Z"))
    assert found.transfer.started == datetime.fromisoformat("2026-11-27T10:30:00Z")


def test_a_start_in_the_future_is_a_wrong_clock_and_counts_from_when_it_was_seen() -> None:
    seen = STARTED + timedelta(hours=1)
    assert (
        running(moving(startTimestamp="9999-12-31T23:59:59Z"), seen=seen).transfer.started == seen
    )
    with pytest.raises(InvalidObject, match=r"status\.migrationState\.startTimestamp"):
        look(moving(startTimestamp="9999-12-31T23:59:59Z"))


def test_a_start_that_is_no_time_is_named() -> None:
    with pytest.raises(InvalidObject, match=r"status\.migrationState\.startTimestamp"):
        look(moving(startTimestamp="yesterday"))


@pytest.mark.parametrize(
    ("vm", "run"),
    [
        (moving(abortRequested=True), under_way()),
        (moving(), under_way(deletionTimestamp="2026-11-27T11:00:00Z")),
    ],
    ids=["abort requested", "deleted"],
)
def test_what_somebody_has_ended_already_is_not_overdue(vm: Any, run: Any) -> None:
    assert not running(vm, run).overdue(STARTED + timedelta(days=1))


def test_the_abort_says_which_migration_why_and_what_would_help() -> None:
    decision = decided()
    assert (decision.outcome, decision.allowed) == (Outcome.ABORTED, False)
    assert decision.message == (
        "migration web-1 of VM prod/web from node a to node b aborted: it has not ended in the "
        "6400 s allowed (8 GiB x 800 s/GiB; KubeVirt itself aborts after 1350 s) since "
        "2026-11-27T10:00:00Z, its start; the VM stays where it is. Set allowAutoConverge in the "
        "KubeVirt CR or a MigrationPolicy, migrate while the VM writes less, or allow more time "
        f"(deadline.secondsPerGiB). Decision {decision.decision_id}."
    )


@pytest.mark.parametrize(
    ("configuration", "outcome"),
    [
        ("rules: {completion-deadline: {mode: warn}}", Outcome.WARNED),
        ("rules: {completion-deadline: {mode: audit}}", Outcome.AUDITED),
        ("maxMode: audit", Outcome.AUDITED),
        (
            "rules: {completion-deadline: {namespaces: [{match: 'pr*', mode: warn}]}}",
            Outcome.WARNED,
        ),
        ("", Outcome.ABORTED),
    ],
)
def test_the_mode_says_what_becomes_of_an_overrun(configuration: str, outcome: Outcome) -> None:
    decision = decided(configuration=configuration)
    assert decision.outcome is outcome
    assert decision.allowed is (outcome is not Outcome.ABORTED)
    if outcome is not Outcome.ABORTED:
        assert running(configuration=configuration).unwritten == {}
        assert "has overrun its deadline 2026-11-27T11:46:40Z" in decision.message


def test_mode_off_looks_at_nothing() -> None:
    assert look(configuration="rules: {completion-deadline: {mode: 'off'}}") is None


@pytest.mark.parametrize(
    ("note", "more", "why"),
    [
        (EVACUATION, (UPGRADE,), "the Harvester upgrade waits for KubeVirt to end it"),
        ("kubevirt.io/workloadUpdateMigration", (), "KubeVirt would begin it again at once"),
    ],
)
def test_what_may_only_be_warned_about_is_not_ended(note: str, more: Any, why: str) -> None:
    decision = decided(run=under_way({note: "x"}), more=more)
    assert decision.outcome is Outcome.WARNED
    assert why in decision.message
    # Its true deadline stands on it all the same.
    assert running(run=under_way({note: "x"}), more=more).unwritten
    assert decided(run=under_way({EVACUATION: "a"})).outcome is Outcome.ABORTED


def test_who_started_it_is_what_the_guard_wrote_whatever_was_added_later() -> None:
    forged = {f"{NOTES}origin": "user", "kubevirt.io/workloadUpdateMigration": "", EVACUATION: "a"}
    decision = decided(run=under_way(forged))
    assert (decision.outcome, decision.origin) == (Outcome.ABORTED, "user")


def test_a_decentralized_migration_is_left_to_kubevirt() -> None:
    for side in ("sendTo", "receive"):
        leaving = under_way()
        leaving["spec"][side] = {"migrationID": "one"}
        decision = decided(run=leaving)
        assert decision.outcome is Outcome.WARNED
        assert "only KubeVirt sees both of its ends" in decision.message


def test_what_was_decided_can_be_taken_back_under_the_same_id() -> None:
    found = running()
    aborted = decide_overrun(found, new_id())
    back = decide_not_ended(found, aborted, "it has ended by itself")
    assert (back.outcome, back.allowed) == (Outcome.NOT_ABORTED, True)
    assert back.decision_id == aborted.decision_id
    assert back.message == (
        "migration web-1 of VM prod/web from node a to node b was not aborted after all: it has "
        f"ended by itself. Decision {aborted.decision_id}."
    )


def test_the_mode_can_differ_for_evacuations() -> None:
    apart = "rules: {completion-deadline: {origins: {evacuation: warn}}}"
    assert decided(configuration=apart).outcome is Outcome.ABORTED
    evacuating = under_way({EVACUATION: "a"})
    assert decided(run=evacuating, configuration=apart).outcome is Outcome.WARNED


@pytest.mark.parametrize(
    ("mode", "why"), [("PostCopy", "would be lost"), ("Paused", "KubeVirt has paused its guest")]
)
def test_a_guest_that_cannot_go_back_is_never_aborted(mode: str, why: str) -> None:
    decision = decided(moving(mode=mode))
    assert decision.outcome is Outcome.WARNED
    assert "; not aborted, because " in decision.message
    assert why in decision.message


def test_kubevirts_own_limit_is_left_to_kubevirt() -> None:
    decision = decided(configuration="deadline: {mode: kubevirt}")
    assert decision.outcome is Outcome.WARNED
    assert "KubeVirt ends it by its own limit" in decision.message


def test_an_override_on_the_vmi_lets_it_go_on_and_the_record_names_the_author() -> None:
    spared = moving()
    spared["metadata"]["annotations"] = OVERRIDE
    decision = decided(spared)
    assert decision.outcome is Outcome.OVERRIDDEN
    assert (decision.overridden_by, decision.override_reason) == ("root", "it must move")
    forged = moving()
    forged["metadata"]["annotations"] = OVERRIDE | {f"{NOTES}override-by": "root@uid-of-another"}
    assert decided(forged).outcome is Outcome.ABORTED


def test_hostile_names_leave_one_line_of_bounded_length() -> None:
    hostile = moving(sourceNode="a\n\x1b[31m" + "x" * 5000, targetNode="\u202eb")
    message = decided(hostile).message
    assert message.isprintable()
    assert len(message) <= 1000

"""Modes, origins, exemptions, overrides and ids (docs/rules.md)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.review.asking import (
    CONTROLLER,
    NOW,
    UPGRADE,
    Cluster,
    launcher,
    migration,
    new_id,
    node,
    notes_of,
    vmi,
)
from webhook.policy.rules import Mode

WORKED = (node("a", "XYZ"), node("b", "ABC"), vmi(), launcher())
EVACUATION = {"kubevirt.io/evacuationMigration": "a"}
WORKLOAD_UPDATE = {"kubevirt.io/workloadUpdateMigration": ""}
OVERRIDE = "migration-guard.io/override"
OVERRIDE_BY = "migration-guard.io/override-by"
DECISION = "migration-guard.io/decision"


@pytest.mark.parametrize(
    ("mode", "outcome"), [("enforce", "refused"), ("warn", "warned"), ("audit", "audited")]
)
def test_the_mode_says_what_comes_of_a_finding(mode: str, outcome: str) -> None:
    cluster = Cluster(*WORKED, configuration=f"rules: {{incompatible-target: {{mode: {mode}}}}}")
    decision = cluster.ask(migration())
    assert decision.outcome == outcome
    assert decision.allowed == (mode != "enforce")
    assert bool(decision.warnings) == (mode == "warn")


def test_max_mode_audit_refuses_warns_and_changes_no_selector() -> None:
    decision = Cluster(*WORKED, configuration="maxMode: audit").ask(migration())
    assert (decision.outcome, decision.allowed, decision.warnings) == ("audited", True, ())


def test_a_namespace_has_its_own_mode() -> None:
    text = "rules: {incompatible-target: {namespaces: [{match: 'pr*', mode: warn}]}}"
    assert Cluster(*WORKED, configuration=text).ask(migration()).outcome == "warned"


def test_an_evacuation_is_refused_like_a_users_migration() -> None:
    decision = Cluster(*WORKED).ask(migration(**EVACUATION), user=CONTROLLER)
    assert (decision.outcome, decision.origin) == ("refused", "evacuation")


def test_an_evacuation_is_warned_about_while_harvester_upgrades() -> None:
    cluster = Cluster(*WORKED, UPGRADE)
    assert cluster.ask(migration(**EVACUATION), user=CONTROLLER).outcome == "warned"
    assert cluster.ask(migration()).outcome == "refused"


def test_the_annotation_of_an_evacuation_counts_for_the_controller_only() -> None:
    decision = Cluster(*WORKED).ask(migration(**WORKLOAD_UPDATE))
    assert (decision.outcome, decision.origin) == ("refused", "user")


@given(
    mode=st.sampled_from(Mode),
    blind=st.booleans(),
    deny=st.booleans(),
)
def test_a_workload_update_is_never_refused(mode: Mode, blind: bool, deny: bool) -> None:
    text = (
        f"whenBlind: {'deny' if deny else 'allow'}\n"
        f"rules: {{incompatible-target: {{mode: '{mode.value}'}}, no-room-now: {{mode: enforce}}}}"
    )
    objects = (vmi(), launcher()) if blind else WORKED
    decision = Cluster(*objects, configuration=text).ask(
        migration(**WORKLOAD_UPDATE), user=CONTROLLER
    )
    assert decision.allowed


def test_whoever_is_exempt_is_never_refused() -> None:
    decision = Cluster(*WORKED, configuration="exempt: {users: [alice]}").ask(migration())
    assert (decision.outcome, decision.allowed) == ("exempt", True)
    assert decision.warnings


def test_an_override_on_the_migration_counts_when_an_entitled_user_writes_it() -> None:
    decision = Cluster(*WORKED).ask(migration(**{OVERRIDE: "tonight"}), groups=("system:masters",))
    assert (decision.outcome, decision.allowed) == ("overridden", True)
    assert (decision.overridden_by, decision.override_reason) == ("alice", "tonight")


def test_an_override_by_anybody_else_is_ignored_with_a_warning() -> None:
    decision = Cluster(*WORKED).ask(migration(**{OVERRIDE: "please"}))
    assert decision.outcome == "refused"
    assert any("override is ignored" in warning for warning in decision.warnings)


def test_an_override_on_the_vmi_counts_with_the_guards_record_of_its_author() -> None:
    guest = vmi()
    guest["metadata"]["annotations"] = {OVERRIDE: "x", OVERRIDE_BY: "root@uid-web"}
    decision = Cluster(*WORKED, guest).ask(migration(**EVACUATION), user=CONTROLLER)
    assert (decision.outcome, decision.overridden_by) == ("overridden", "root")


def test_an_ignored_override_on_the_migration_does_not_hide_one_that_counts_on_the_vmi() -> None:
    guest = vmi()
    guest["metadata"]["annotations"] = {OVERRIDE: "x", OVERRIDE_BY: "root@uid-web"}
    decision = Cluster(*WORKED, guest).ask(migration(**{OVERRIDE: "please"}))
    assert (decision.outcome, decision.overridden_by) == ("overridden", "root")
    assert decision.override_reason == "x"
    assert any("override is ignored" in warning for warning in decision.warnings)


def test_an_override_carried_along_from_another_vmi_is_worthless() -> None:
    guest = vmi()
    guest["metadata"]["annotations"] = {OVERRIDE: "x", OVERRIDE_BY: "root@uid-of-another"}
    decision = Cluster(*WORKED, guest).ask(migration())
    assert decision.outcome == "refused"
    assert any("ignored" in warning for warning in decision.warnings)


@pytest.mark.parametrize(("groups", "author"), [(("system:masters",), "alice@uid-web"), ((), "")])
def test_who_writes_an_override_on_a_vmi_is_recorded(groups: tuple[str, ...], author: str) -> None:
    new = vmi()
    new["metadata"]["annotations"] = {OVERRIDE: "x", OVERRIDE_BY: "root@uid-web"}
    cluster = Cluster(*WORKED)
    cluster.ask(new, old=vmi(), groups=groups)
    assert notes_of(cluster.after)[OVERRIDE_BY] == author


def test_an_identical_refusal_within_the_hour_has_the_same_id_and_text() -> None:
    cluster = Cluster(*WORKED)
    first = cluster.ask(migration())
    again = cluster.ask(migration(), now=NOW + timedelta(minutes=59))
    later = cluster.ask(migration(), now=NOW + timedelta(minutes=61))
    assert again.message == first.message
    assert later.decision_id != first.decision_id


def test_another_requester_has_an_id_of_its_own() -> None:
    cluster = Cluster(*WORKED)
    assert cluster.ask(migration()).decision_id != cluster.ask(migration(), user="bob").decision_id


def test_a_dry_run_leaves_nothing_in_memory() -> None:
    cluster = Cluster(*WORKED)
    first = cluster.ask(migration(), dry_run=True)
    assert cluster.ask(migration()).decision_id != first.decision_id


def test_forged_annotations_of_a_new_migration_are_overwritten() -> None:
    forged = {
        DECISION: new_id(),
        "migration-guard.io/completion-deadline": "2099-01-01T00:00:00Z",
        OVERRIDE_BY: "root@uid-web",
    }
    cluster = Cluster(node("a"), node("b"), vmi(), launcher())
    decision = cluster.ask(migration(**forged))
    written = notes_of(cluster.after)
    assert written[DECISION] == decision.decision_id != forged[DECISION]
    assert written["migration-guard.io/completion-deadline"] == "2026-11-26T13:46:40Z"
    assert written[OVERRIDE_BY] == ""


def test_the_guards_annotations_cannot_be_changed_afterwards() -> None:
    old = migration(uid="m", **{"migration-guard.io/completion-timeout": "6400s"})
    new = migration(uid="m", **{"migration-guard.io/completion-timeout": "1s"})
    cluster = Cluster(*WORKED)
    decision = cluster.ask(new, old=old)
    assert (decision.outcome, decision.code) == ("refused", 403)
    assert "completion-timeout belong to migration-guard" in decision.message
    assert cluster.ask(new, old=old, groups=("system:masters",)).allowed


def test_an_update_of_something_on_its_way_out_is_not_reviewed() -> None:
    old = migration(uid="m", **{DECISION: "x"})
    new = migration(uid="m")
    new["metadata"]["deletionTimestamp"] = "2026-11-26T12:00:00Z"
    assert Cluster(*WORKED).ask(new, old=old).outcome == "not-reviewed"

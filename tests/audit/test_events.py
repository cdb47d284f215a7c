"""Which Events a decision makes, and on what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.audit.recorded import refusal
from webhook.audit.events import LONGEST_MESSAGE, REASONS, events_of
from webhook.audit.record import MUTATING, VALIDATING, Record
from webhook.review.decision import Outcome


def of_migration(outcome: Outcome = Outcome.REFUSED, **fields: Any) -> Record:
    given: dict[str, Any] = {
        "phase": VALIDATING,
        "outcome": outcome,
        "allowed": outcome is not Outcome.REFUSED,
        "operation": "CREATE",
        "group": "kubevirt.io",
        "version": "v1",
        "kind": "VirtualMachineInstanceMigration",
        "namespace": "prod",
        "name": "web-1",
        "object_uid": "uid-of-migration",
        "vm": "prod/web",
        "vm_uid": "uid-of-vmi",
        "dry_run": False,
    }
    return refusal(**{**given, **fields})


def about(record: Record) -> list[tuple[str, str, str]]:
    return [(e.about.kind, e.about.name, e.about.uid) for e in events_of(record)]


def test_a_refused_migration_is_told_on_its_vmi() -> None:
    record = of_migration()
    (event,) = events_of(record)

    told = event.to_object(3, record.time, record.time + 90_000_000, "guard-0")

    assert told["involvedObject"] == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "namespace": "prod",
        "name": "web",
        "uid": "uid-of-vmi",
    }
    assert (told["type"], told["reason"], told["count"]) == ("Warning", "MigrationRefused", 3)
    assert record.decision in told["message"]
    assert told["metadata"]["namespace"] == "prod"
    assert told["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "migration-guard"}
    assert told["firstTimestamp"] < told["lastTimestamp"]
    assert told["lastTimestamp"].endswith("Z")
    assert "." not in told["lastTimestamp"]


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        (Outcome.WARNED, "Warning", "MigrationWarned"),
        (Outcome.BLIND, "Warning", "MigrationNotJudged"),
        (Outcome.OVERRIDDEN, "Normal", "MigrationOverridden"),
        (Outcome.EXEMPT, "Normal", "MigrationExempted"),
    ],
)
def test_a_migration_that_comes_to_be_is_told_on_itself_too(
    outcome: Outcome, kind: str, reason: str
) -> None:
    record = of_migration(outcome)
    assert about(record) == [
        ("VirtualMachineInstance", "web", "uid-of-vmi"),
        ("VirtualMachineInstanceMigration", "web-1", "uid-of-migration"),
    ]
    assert {(e.type, e.reason) for e in events_of(record)} == {(kind, reason)}
    assert reason in REASONS


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"),
    [
        (Outcome.ABORTED, "Warning", "MigrationAborted"),
        (Outcome.WARNED, "Warning", "MigrationWarned"),
        (Outcome.OVERRIDDEN, "Normal", "MigrationOverridden"),
    ],
)
def test_a_migration_that_overruns_is_told_on_its_vmi_and_on_itself(
    outcome: Outcome, kind: str, reason: str
) -> None:
    aborted = outcome is Outcome.ABORTED
    record = of_migration(outcome, operation="DELETE" if aborted else "", allowed=not aborted)
    assert about(record) == [
        ("VirtualMachineInstance", "web", "uid-of-vmi"),
        ("VirtualMachineInstanceMigration", "web-1", "uid-of-migration"),
    ]
    assert {(e.type, e.reason) for e in events_of(record)} == {(kind, reason)}
    assert reason in REASONS


def test_what_else_is_refused_or_warned_about_is_told_on_the_object_itself() -> None:
    record = of_migration(
        Outcome.WARNED, kind="VirtualMachine", name="web", vm="prod/web", object_uid="uid-of-vm"
    )
    assert about(record) == [("VirtualMachine", "web", "uid-of-vm")]
    assert [e.reason for e in events_of(record)] == ["ChangeWarned"]


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": Outcome.ALLOWED},
        {"outcome": Outcome.CHANGED},
        {"outcome": Outcome.AUDITED},
        {"phase": MUTATING},
        {"dry_run": True},
        {"namespace": ""},
    ],
)
def test_nothing_is_told_where_nobody_needs_to_be_told(fields: dict[str, Any]) -> None:
    assert events_of(of_migration(**fields)) == ()


def test_a_retry_by_a_controller_has_the_name_of_the_first_event_and_another_refusal_has_not() -> (
    None
):
    first = of_migration(name="evacuation-abc", message="No. Decision d-1.", decision="d-1")
    retry = of_migration(name="evacuation-xyz", message="No. Decision d-2.", decision="d-2")
    other = replace(first, message="No, for another reason. Decision d-1.")
    assert [e.name for e in events_of(first)] == [e.name for e in events_of(retry)]
    assert [e.name for e in events_of(first)] != [e.name for e in events_of(other)]


def test_an_override_is_told_with_its_author_and_reason() -> None:
    record = of_migration(
        Outcome.OVERRIDDEN,
        message="migration of VM prod/web refused: no. Decision d-1.",
        decision="d-1",
        overridden_by="ada\x1b[31m",
        override_reason="the node burns",
    )
    assert {event.message for event in events_of(record)} == {
        "migration of VM prod/web refused: no. Decision d-1. "
        'Overridden by "ada?[31m": the node burns'
    }


def test_a_long_message_leaves_room_for_who_overrode_it() -> None:
    record = of_migration(
        Outcome.OVERRIDDEN, message="x" * 5000, overridden_by="a" * 5000, override_reason="y" * 5000
    )
    for event in events_of(record):
        assert len(event.message) == LONGEST_MESSAGE
        assert record.decision in event.message
        assert 'Overridden by "a' in event.message


def test_long_names_and_messages_stay_within_what_the_api_server_takes() -> None:
    record = of_migration(vm=f"prod/{'w' * 253}", message="x" * 5000)
    (event,) = events_of(record)
    assert len(event.name) <= 253
    assert len(event.message) == LONGEST_MESSAGE
    assert record.decision in event.message

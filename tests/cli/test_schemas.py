"""The published schemas hold the very enums of the code."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.audit.importance import IMPORTANCE
from webhook.audit.record import Record
from webhook.cli.commands.schema import OUTPUTS, output_schema
from webhook.model.forecast import Verdict
from webhook.model.obstacle import Code, Kind, Origin
from webhook.policy.findings import Level
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.review.cpu_models import MODEL_SOURCES
from webhook.review.decision import Outcome


def at(name: str, *path: str) -> set[str]:
    found: Any = output_schema(name)
    for step in path:
        found = found["items" if step == "[]" else step]
    return set(found["enum"])


@pytest.mark.parametrize("name", ["review", "candidates"])
def test_obstacles_have_every_code_kind_and_origin(name: str) -> None:
    obstacle = ("$defs", "node", "properties", "obstacles", "[]", "properties")
    assert at(name, *obstacle, "code") == set(Code)
    assert at(name, *obstacle, "kind") == set(Kind)
    assert at(name, *obstacle, "origin") == set(Origin)


def test_a_review_has_every_outcome_rule_and_mode() -> None:
    item = ("properties", "items", "[]", "properties")
    rule = (*item, "rules", "[]", "properties")
    # Nothing that is reviewed is aborted: it has not begun.
    outcomes = set(Outcome) - {Outcome.ABORTED, Outcome.NOT_ABORTED}
    assert at("review", *item, "outcome") == outcomes
    assert at("review", *rule, "outcome") == outcomes
    assert at("review", *rule, "rule") == set(Rule)
    assert at("review", *rule, "mode") == {mode.value for mode in Mode}


def test_a_forecast_has_every_verdict_and_reason() -> None:
    vm = ("properties", "vms", "[]", "properties")
    assert at("forecast", *vm, "verdict") == set(Verdict)
    assert at("forecast", *vm, "reasons", "[]", "properties", "code") == {*Code, "blocked"}


def test_candidates_and_check_config_have_theirs() -> None:
    assert at("candidates", "properties", "cpuModelSource") == set(MODEL_SOURCES)
    assert at("check-config", "properties", "findings", "[]", "properties", "level") == set(Level)


@pytest.mark.parametrize("name", ["audit-list", "audit-show"])
def test_a_record_has_every_field_and_every_kind_of_value(name: str) -> None:
    record: Any = output_schema(name)["$defs"]["record"]
    kept = Record("", 0, "", Outcome.REFUSED, allowed=False).to_json()
    beside = {"firstTime", "lastTime", "count", "replica", "sequence"}
    assert set(record["properties"]) == {*kept, *beside} == set(record["required"])
    properties = ("$defs", "record", "properties")
    rule = (*properties, "rules", "[]", "properties")
    obstacle = (*properties, "obstacles", "[]", "properties", "obstacles", "[]", "properties")
    assert at(name, *properties, "outcome") == set(IMPORTANCE)
    assert at(name, *properties, "rule") == {"", *Rule}
    assert at(name, *properties, "mode") == {"", *(mode.value for mode in Mode)}
    assert at(name, *properties, "origin") == {"", *MigrationOrigin}
    assert at(name, *rule, "outcome") == set(Outcome)
    assert at(name, *rule, "rule") == set(Rule)
    assert at(name, *obstacle, "code") == set(Code)
    assert at(name, *obstacle, "kind") == set(Kind)
    assert at(name, *obstacle, "origin") == set(Origin)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_schema_allows_fields_to_be_added(name: str) -> None:
    assert "additionalProperties" not in str(output_schema(name))

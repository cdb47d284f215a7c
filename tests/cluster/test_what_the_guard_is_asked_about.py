"""Entries that ask about less than they must: conditions, object selectors, namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.installations import (
    MIGRATION_ENTRY,
    POD_ENTRY,
    configuration,
    installed,
    said,
    with_entry,
)

FALSE = {"name": "never", "expression": "false"}
VMI_UPDATE = "vmi-override.mutate.migration-guard.io"


@pytest.mark.parametrize(
    ("kind", "name"), [("validating", MIGRATION_ENTRY), ("mutating", POD_ENTRY)]
)
def test_a_match_condition_by_which_nothing_is_asked_is_told(kind: str, name: str) -> None:
    (entry,) = (e for e in configuration(kind)["webhooks"] if e["name"] == name)
    conditions = [*entry.get("matchConditions", ()), FALSE]
    (words,) = said(with_entry(kind, name, matchConditions=conditions))
    assert words == (
        f'{name} has a matchCondition of its own, "never": what does not meet it passes unasked'
    )


def test_match_conditions_that_were_removed_are_missed() -> None:
    told = said(with_entry("mutating", VMI_UPDATE, matchConditions=[]))
    assert {words.split()[4] for words in told} == {"stays", "touches-override"}
    assert all("asked about more than the guard reviews" in words for words in told)


def test_a_match_condition_may_be_folded_in_another_way() -> None:
    (entry,) = (e for e in configuration("mutating")["webhooks"] if e["name"] == VMI_UPDATE)
    folded = [
        {**c, "expression": c["expression"].replace(", ", ",\n  ")}
        for c in entry["matchConditions"]
    ]
    assert said(with_entry("mutating", VMI_UPDATE, matchConditions=folded)) == ()


def test_an_object_selector_that_is_foreign_or_removed_is_told() -> None:
    foreign = {"matchLabels": {"guard": "on"}}
    (words,) = said(with_entry("validating", MIGRATION_ENTRY, objectSelector=foreign))
    assert words.startswith(f"{MIGRATION_ENTRY} has an objectSelector: ")
    (words,) = said(with_entry("mutating", POD_ENTRY, objectSelector={}))
    assert words.startswith(f"{POD_ENTRY} has another objectSelector: ")


def test_an_empty_selector_as_the_api_server_writes_it_is_none() -> None:
    assert said(with_entry("validating", MIGRATION_ENTRY, objectSelector={})) == ()


def test_a_namespace_exclusion_that_was_removed_is_missed() -> None:
    told = said(with_entry("validating", MIGRATION_ENTRY, namespaceSelector={}))
    assert told == tuple(
        f"{MIGRATION_ENTRY} does not leave out {namespace}: its namespaceSelector should"
        for namespace in ("kube-system", "migration-guard")
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"operator": "NotIn", "values": ["b", "a"]}, "whose label team is a or b"),
        ({"operator": "In", "values": ["a"]}, "whose label team is not a"),
        ({"operator": "Exists"}, "without the label team"),
        ({"operator": "DoesNotExist"}, "with the label team"),
    ],
)
def test_namespaces_that_somebody_leaves_out_are_told_in_plain_words(
    more: dict[str, Any], words: str
) -> None:
    obj = configuration("validating")
    for entry in obj["webhooks"][:2]:
        entry["namespaceSelector"]["matchExpressions"].append({"key": "team", **more})
    (told,) = said(installed(validating=obj))
    first, second = (entry["name"] for entry in obj["webhooks"][:2])
    assert told == f"{first} and {second} are not asked about namespaces {words}"


def test_what_narrows_by_namespace_comes_after_what_is_wrong() -> None:
    obj = configuration("validating")
    obj["webhooks"][0]["namespaceSelector"]["matchLabels"] = {"guard": "on"}
    obj["webhooks"][-1]["timeoutSeconds"] = 30
    wrong, narrowed = said(installed(validating=obj))
    assert "30 s" in wrong
    assert (
        narrowed == f"{MIGRATION_ENTRY} is not asked about namespaces whose label guard is not on"
    )

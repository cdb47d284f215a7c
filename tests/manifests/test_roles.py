"""What the guard may do: read what facts come from, write Events, end migrations that overrun."""

from __future__ import annotations

import pytest

from tests.manifests.rendering import OVERLAYS, Object, of_kind, overlay
from webhook.cli.served_control import LEASE
from webhook.cluster.installation import definitions_needed
from webhook.cluster.kinds import MIGRATION_CRD
from webhook.cluster.resources import RESOURCES
from webhook.review.requester import GUARD, GUARD_NAMESPACE

DEFINITIONS = "apiextensions.k8s.io"
FETCHED = {"virtualmachineinstances", "virtualmachineinstancemigrations"}
"""Before a migration is ended, it and its VMI are; all other facts are followed."""
READER = "migration-guard-audit-reader"
"""For people, who are bound to it by whoever installs the guard."""


def rules(objects: list[Object]) -> list[Object]:
    """Return every rule of the guard's roles."""
    roles = [*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")]
    return [rule for role in roles if role["metadata"]["name"] != READER for rule in role["rules"]]


def written_by(name: str) -> set[tuple[str, str]]:
    """Return the verbs that change something in an overlay, each with its resource."""
    return {
        (verb, resource)
        for rule in rules(overlay(name))
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }


QUESTIONS = {("create", "tokenreviews"), ("create", "subjectaccessreviews")}
"""Nothing of them is stored."""
TOLD = {("create", "events"), ("patch", "events")}
LEADS = {("create", "leases"), ("update", "leases")}
ENDS = {(verb, "virtualmachineinstancemigrations") for verb in ("patch", "delete")}


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_written_but_events_a_lease_and_migrations_that_run(name: str) -> None:
    assert written_by(name) == QUESTIONS | TOLD | LEADS | (set() if name == "observe" else ENDS)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_one_lease_is_in_the_guards_own_namespace(name: str) -> None:
    roles = [r for r in of_kind(overlay(name), "ClusterRole") if "leases" in str(r["rules"])]
    assert roles == []
    (role,) = of_kind(overlay(name), "Role")
    assert role["metadata"]["namespace"] == GUARD_NAMESPACE
    create, rest = role["rules"]
    assert (create["resources"], create["verbs"]) == (["leases"], ["create"])
    assert (rest["resources"], rest["resourceNames"]) == (["leases"], [LEASE])


@pytest.mark.parametrize("name", OVERLAYS)
def test_facts_are_followed_and_no_secret_can_be_read(name: str) -> None:
    for rule in rules(overlay(name)):
        assert "*" not in (*rule["apiGroups"], *rule["resources"])
        assert not {"secrets", "configmaps"} & set(rule["resources"])
        if rule["resources"] in (["events"], ["leases"]):
            assert "list" not in rule["verbs"]
        elif "get" in rule["verbs"] and "resourceNames" not in rule:
            assert rule["apiGroups"] == ["kubevirt.io"]
            assert set(rule["resources"]) <= FETCHED
        elif rule["apiGroups"][0].startswith("auth"):
            # Both are questions; nothing is stored.
            assert rule["resources"] in (["tokenreviews"], ["subjectaccessreviews"])
            assert rule["verbs"] == ["create"]
        elif "resourceNames" not in rule:
            assert rule["verbs"] == ["list", "watch"]
        else:
            assert rule["verbs"] in (["get"], ["list", "watch"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_kinds_that_may_be_read_are_those_that_the_code_reads(name: str) -> None:
    readable = {
        (group, resource)
        for rule in rules(overlay(name))
        if "resourceNames" not in rule and "list" in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert readable == {(r.group, r.name) for r in RESOURCES if r.group != DEFINITIONS}


@pytest.mark.parametrize("name", OVERLAYS)
def test_definitions_and_webhook_configurations_are_readable_by_name_alone(name: str) -> None:
    by_name = {
        (verb, resource): set(rule["resourceNames"])
        for rule in rules(overlay(name))
        if "resourceNames" in rule
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource != "leases"
    }
    assert by_name == {
        ("get", "mutatingwebhookconfigurations"): {"migration-guard"},
        ("get", "validatingwebhookconfigurations"): {"migration-guard"},
        ("get", "customresourcedefinitions"): set(definitions_needed()),
        ("list", "customresourcedefinitions"): {MIGRATION_CRD},
        ("watch", "customresourcedefinitions"): {MIGRATION_CRD},
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_role_is_bound_to_the_guards_account_alone(name: str) -> None:
    objects = overlay(name)
    roles = [*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")]
    bindings = [*of_kind(objects, "ClusterRoleBinding"), *of_kind(objects, "RoleBinding")]
    bound = {b["roleRef"]["name"] for b in bindings}
    assert bound == {r["metadata"]["name"] for r in roles} - {READER}
    for binding in bindings:
        (subject,) = binding["subjects"]
        who = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        assert (subject["kind"], who) == ("ServiceAccount", GUARD)


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_reader_of_the_audit_may_read_what_is_served_and_nothing_else(name: str) -> None:
    roles = of_kind(overlay(name), "ClusterRole")
    (reader,) = (role["rules"] for role in roles if role["metadata"]["name"] == READER)
    assert reader == [{"nonResourceURLs": ["/audit/*"], "verbs": ["get"]}]

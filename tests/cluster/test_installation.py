"""What is said of an installation that differs from what the guard needs."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml

from tests.cluster.installations import (
    BASE,
    KUBEVIRT_ENTRY,
    MIGRATION_ENTRY,
    POD_ENTRY,
    asking_about_evictions,
    configuration,
    definition,
    installed,
    said,
    with_entry,
    without,
)
from webhook.cluster.installation import Installation, definitions_needed


def test_nothing_is_said_of_the_manifests_as_they_are() -> None:
    assert said(installed()) == ()
    assert said(asking_about_evictions()) == ()


def test_an_entry_that_keeps_nodes_from_being_drained_while_the_guard_is_down_is_told() -> None:
    (told,) = said(asking_about_evictions(failurePolicy="Fail"))
    assert told.startswith("eviction.mutate.migration-guard.io says failurePolicy Fail")
    assert "drained" in told


def test_the_definitions_are_those_of_the_kinds_that_are_reviewed() -> None:
    assert definitions_needed() == (
        "kubevirts.kubevirt.io",
        "virtualmachineinstancemigrations.kubevirt.io",
        "virtualmachineinstances.kubevirt.io",
        "virtualmachines.kubevirt.io",
    )


@pytest.mark.parametrize("kind", ["mutating", "validating"])
def test_a_configuration_that_is_gone_is_missed(kind: str) -> None:
    (words,) = said(installed(**{kind: None}))
    assert words == f"there is no {kind} webhook configuration migration-guard: apply the manifests"


@pytest.mark.parametrize("kind", ["mutating", "validating"])
def test_every_entry_is_missed_when_it_is_gone(kind: str) -> None:
    for entry in configuration(kind)["webhooks"]:
        (rule,) = entry["rules"]
        (words,) = said(without(kind, entry["name"]))
        assert words == (
            f"no {kind} webhook asks about {rule['resources'][0]} at {rule['operations'][0]}"
        )


def test_wildcards_ask_about_everything() -> None:
    everything = {
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "resources": ["*/*"],
        "operations": ["*"],
    }
    obj = configuration("validating")
    obj["webhooks"] = [{**obj["webhooks"][0], "rules": [everything]}]
    assert not [words for words in said(installed(validating=obj)) if "asks about" in words]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("apiGroups", ["pool.kubevirt.io"]),
        ("apiVersions", ["v1alpha3"]),
        ("resources", ["virtualmachineinstancemigrations/status"]),
        ("operations", ["UPDATE"]),
    ],
)
def test_a_rule_that_asks_for_something_else_does_not_count(field: str, value: list[str]) -> None:
    (rule,) = configuration("validating")["webhooks"][0]["rules"]
    changed = with_entry("validating", MIGRATION_ENTRY, rules=[{**rule, field: value}])
    assert "no validating webhook asks about virtualmachineinstancemigrations at CREATE" in said(
        changed
    )


def test_an_entry_that_leads_to_the_wrong_pass_does_not_count() -> None:
    obj = configuration("validating")
    obj["webhooks"][0]["clientConfig"]["service"]["path"] = "/mutate"
    unasked, where = said(installed(validating=obj))
    assert "virtualmachineinstancemigrations at CREATE" in unasked
    assert where.startswith(f"{MIGRATION_ENTRY} leads to the Service migration-guard/")
    assert "path /mutate, not to migration-guard/migration-guard, port 8443, path /val" in where


def test_an_entry_that_leads_elsewhere_is_named() -> None:
    for field, value in (("namespace", "other"), ("name", "other"), ("port", 443), ("port", None)):
        obj = configuration("validating")
        obj["webhooks"][0]["clientConfig"]["service"][field] = value
        (words,) = said(installed(validating=obj))
        assert words.startswith(f"{MIGRATION_ENTRY} leads to the Service ")
        assert str(value or "port 443") in words


def test_an_entry_that_leads_to_an_address_must_lead_to_the_right_pass_there() -> None:
    obj = configuration("validating")
    at = {"caBundle": "LS0t", "url": "https://guard.example.org/validate"}
    obj["webhooks"][0]["clientConfig"] = at
    assert said(installed(validating=obj)) == ()
    at["url"] = "https://[guard"
    assert "not to /validate there" in said(installed(validating=obj))[1]


def test_an_entry_without_a_ca_is_named() -> None:
    obj = configuration("mutating")
    del obj["webhooks"][0]["clientConfig"]["caBundle"]
    (words,) = said(installed(mutating=obj))
    assert "has no caBundle" in words


def test_an_entry_whose_ca_did_not_issue_the_served_certificate_is_named() -> None:
    obj = configuration("mutating")
    obj["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(b"another").decode()
    asked = []

    def distrust(bundle: bytes, name: str) -> str | None:
        asked.append(name)
        return "self-signed\n" if bundle == b"another" else None

    (words,) = said(installed(mutating=obj), distrust=distrust)
    assert words.startswith(obj["webhooks"][0]["name"] + " has a caBundle with which")
    assert "refuses the served certificate (self-signed?)" in words
    assert set(asked) == {"migration-guard.migration-guard.svc"}


def test_an_entry_whose_ca_is_not_in_base64_is_named() -> None:
    obj = configuration("mutating")
    obj["webhooks"][0]["clientConfig"]["caBundle"] = "%"
    (words,) = said(installed(mutating=obj))
    assert "it is not in base64" in words


def test_pods_must_never_fail() -> None:
    (words,) = said(with_entry("mutating", POD_ENTRY, failurePolicy="Fail"))
    assert words.startswith(f"{POD_ENTRY} says failurePolicy Fail: a refused pod")


def test_migrations_must_not_fail_for_workload_updates() -> None:
    (words,) = said(with_entry("validating", MIGRATION_ENTRY, failurePolicy="Fail"))
    assert "for workload updates too" in words


@pytest.mark.parametrize(
    ("kind", "name", "harm"),
    [
        ("mutating", "vmi-create.mutate.migration-guard.io", "what it asks about is refused"),
        ("mutating", "migration-create.mutate.migration-guard.io", "many times a second"),
        ("validating", KUBEVIRT_ENTRY, "what it asks about is refused"),
    ],
)
def test_nothing_else_may_fail_either(kind: str, name: str, harm: str) -> None:
    (words,) = said(with_entry(kind, name, failurePolicy="Fail"))
    assert words.startswith(f"{name} says failurePolicy Fail: ")
    assert words.endswith(harm)


def strict(accounts: tuple[str, str] = ("", "")) -> Installation:
    """Return the installation with the component ``strict``.

    Args:
        accounts: One more that the entry which fails, and the one for workload updates, name.
    """
    component = BASE.parent / "components" / "strict" / "migrations-fail.yaml"
    judged, updates = yaml.safe_load(component.read_text(encoding="utf-8"))["webhooks"]
    for entry, account in zip((judged, updates), accounts, strict=True):
        (condition,) = entry["matchConditions"]
        more = f'in ["{account}", ' if account else "in ["
        condition["expression"] = condition["expression"].replace("in [", more)
    updates["clientConfig"]["caBundle"] = "LS0t"
    obj = configuration("validating")
    obj["webhooks"][0] |= judged
    obj["webhooks"].append(updates)
    return installed(validating=obj)


def test_the_workload_updater_of_this_cluster_must_be_known() -> None:
    assert said(strict()) == ()
    (words,) = said(strict(), namespaces=("kubevirt", "virt"))
    own = "system:serviceaccount:virt:kubevirt-controller"
    assert own in words
    assert said(strict((own, own)), namespaces=("kubevirt", "virt")) == ()
    (words,) = said(strict((own, "")), namespaces=("kubevirt", "virt"))
    assert "name different accounts" in words


def test_workload_updates_that_one_entry_leaves_out_must_be_another_ones() -> None:
    found = strict()
    assert found.validating is not None
    found.validating["webhooks"].pop()
    (words,) = said(found)
    assert words.endswith("workload updates pass unasked")


def test_an_exact_match_lets_other_versions_pass() -> None:
    (words,) = said(with_entry("mutating", POD_ENTRY, matchPolicy="Exact"))
    assert "matchPolicy Exact" in words


@pytest.mark.parametrize(("seconds", "told"), [(2, False), (5, False), (6, True), (None, True)])
def test_a_long_timeout_is_told(seconds: int | None, told: bool) -> None:
    found = said(with_entry("mutating", POD_ENTRY, timeoutSeconds=seconds))
    assert bool(found) is told


def test_the_namespace_of_kubevirt_must_not_be_left_out() -> None:
    left_out = {
        "matchExpressions": [
            {
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system", "migration-guard", "kubevirt"],
            }
        ]
    }
    changed = with_entry("validating", KUBEVIRT_ENTRY, namespaceSelector=left_out)
    (words,) = said(changed)
    assert words == f"{KUBEVIRT_ENTRY} leaves out kubevirt, where KubeVirt is"
    (words,) = said(changed, namespaces=("harvester-system",))
    assert words == f"{KUBEVIRT_ENTRY} is not asked about namespaces named kubevirt"


def test_first_pods_must_be_asked_about_where_the_configuration_wants_them() -> None:
    (words,) = said(installed(), first_pods=True)
    assert "first-boot" in words
    component = BASE.parent / "components" / "first-boot" / "first-pods.yaml"
    (more,) = yaml.safe_load(component.read_text(encoding="utf-8"))["webhooks"]
    more["clientConfig"]["caBundle"] = "LS0t"
    obj = configuration("mutating")
    obj["webhooks"].append(more)
    assert said(installed(mutating=obj), first_pods=True) == ()
    assert said(installed(mutating=obj)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sideEffects": "None"}, "sideEffects None"),
        ({"reinvocationPolicy": "IfNeeded"}, "reinvocationPolicy IfNeeded"),
        ({"admissionReviewVersions": ["v1beta1"]}, "admissionReviewVersions"),
    ],
)
def test_every_other_setting_is_looked_at_too(change: dict[str, Any], words: str) -> None:
    (told,) = said(with_entry("mutating", POD_ENTRY, **change))
    assert words in told


def test_rules_that_ask_about_more_are_told() -> None:
    (entry,) = (e for e in configuration("mutating")["webhooks"] if e["name"] == POD_ENTRY)
    rule = {**entry["rules"][0], "operations": ["CREATE", "UPDATE"]}
    (words,) = said(with_entry("mutating", POD_ENTRY, rules=[rule]))
    assert words == f"{POD_ENTRY} has other rules than pods at CREATE, in v1"
    rule = {**entry["rules"][0], "scope": "Cluster"}
    assert said(with_entry("mutating", POD_ENTRY, rules=[rule])) == (words,)


def test_an_entry_that_is_none_of_the_guards_is_told() -> None:
    obj = configuration("mutating")
    obj["webhooks"].append({**obj["webhooks"][0], "name": "more.example.org"})
    (words,) = said(installed(mutating=obj))
    assert words == "more.example.org is no mutating webhook of the guard's: remove it"


def test_a_definition_that_is_missing_or_serves_other_versions_is_named() -> None:
    (first, second, *rest) = definitions_needed()
    found = {
        first: None,
        second: definition(v1=False, v2=True),
        **dict.fromkeys(rest, definition(v1=True)),
    }
    absent, moved = said(installed(definitions=found))
    assert absent == f"{first} is not installed"
    assert moved == f"{second} is not served in v1 (v2): its objects pass unasked"


@pytest.mark.parametrize("broken", [{"webhooks": "many"}, {"webhooks": [{"rules": [7]}]}])
def test_what_cannot_be_read_is_said_so(broken: dict[str, Any]) -> None:
    (words,) = said(installed(validating=broken))
    assert words.startswith("the validating webhook configuration cannot be read: ")
    (words,) = said(installed(definitions={"a": {"spec": {"versions": 3}}}))
    assert words.startswith("a cannot be read: ")

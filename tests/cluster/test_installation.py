"""What is said of an installation that differs from what the guard needs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from webhook.cluster.installation import Installation, definitions_needed, drift

BASE = Path(__file__).parents[2] / "manifests" / "base"
POD_ENTRY = "target-pod-create.mutate.migration-guard.io"
MIGRATION_ENTRY = "migration-create.validate.migration-guard.io"
KUBEVIRT_ENTRY = "kubevirt-update.validate.migration-guard.io"


def configuration(kind: str) -> dict[str, Any]:
    """Return a configuration of the manifests, with a CA as an installation fills it in."""
    obj = yaml.safe_load((BASE / f"{kind}-webhooks.yaml").read_text(encoding="utf-8"))
    for entry in obj["webhooks"]:
        entry["clientConfig"]["caBundle"] = "LS0t"
    return obj


def definition(**versions: bool) -> dict[str, Any]:
    return {"spec": {"versions": [{"name": n, "served": s} for n, s in versions.items()]}}


def installed(**instead: Any) -> Installation:
    parts: dict[str, Any] = {
        "mutating": configuration("mutating"),
        "validating": configuration("validating"),
        "definitions": dict.fromkeys(definitions_needed(), definition(v1=True, v1alpha3=True)),
    }
    return Installation(**{**parts, **instead})


def said(
    found: Installation,
    *,
    namespaces: tuple[str, ...] = ("kubevirt",),
    first_pods: bool = False,
    distrust: Callable[[bytes, str], str | None] = lambda bundle, name: None,
) -> tuple[str, ...]:
    return drift(found, kubevirt_namespaces=namespaces, first_pods=first_pods, distrust=distrust)


def with_entry(kind: str, name: str, **change: Any) -> Installation:
    """Return the installation with one entry changed."""
    obj = configuration(kind)
    (entry,) = (entry for entry in obj["webhooks"] if entry["name"] == name)
    entry |= change
    return installed(**{kind: obj})


def without(kind: str, name: str) -> Installation:
    obj = configuration(kind)
    obj["webhooks"] = [entry for entry in obj["webhooks"] if entry["name"] != name]
    return installed(**{kind: obj})


def asking_about_evictions(**change: Any) -> Installation:
    """Return the installation with the component ``drain``."""
    component = BASE.parent / "components" / "drain" / "evictions.yaml"
    (more,) = yaml.safe_load(component.read_text(encoding="utf-8"))["webhooks"]
    more["clientConfig"]["caBundle"] = "LS0t"
    obj = configuration("mutating")
    obj["webhooks"].append({**more, **change})
    return installed(mutating=obj)


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

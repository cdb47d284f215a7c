"""What is said of an installation that differs from what the guard needs."""

from __future__ import annotations

import base64
import copy
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
    (words,) = said(installed(validating=obj))
    assert "virtualmachineinstancemigrations at CREATE" in words


def test_an_entry_that_leads_elsewhere_is_named() -> None:
    obj = configuration("validating")
    obj["webhooks"][0]["clientConfig"]["service"]["namespace"] = "other"
    (words,) = said(installed(validating=obj))
    assert words == f"{MIGRATION_ENTRY} leads to the Service other/migration-guard"


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


def test_the_workload_updater_of_this_cluster_must_be_known() -> None:
    condition = (
        'request.userInfo.username in ["system:serviceaccount:kubevirt:kubevirt-controller"] '
        '&& object.metadata.?annotations[?"kubevirt.io/workloadUpdateMigration"].hasValue()'
    )
    strict = with_entry(
        "validating",
        MIGRATION_ENTRY,
        failurePolicy="Fail",
        matchConditions=[{"name": "updates", "expression": condition}],
    )
    assert said(strict) == ()
    (words,) = said(strict, namespaces=("kubevirt", "virt"))
    assert "system:serviceaccount:virt:kubevirt-controller" in words


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
                "values": ["kube-system", "kubevirt"],
            }
        ]
    }
    changed = with_entry("validating", KUBEVIRT_ENTRY, namespaceSelector=left_out)
    (words,) = said(changed)
    assert words == f"{KUBEVIRT_ENTRY} leaves out kubevirt, where KubeVirt is"
    assert said(changed, namespaces=("harvester-system",)) == ()


def test_first_pods_must_be_asked_about_where_the_configuration_wants_them() -> None:
    (words,) = said(installed(), first_pods=True)
    assert "first-boot" in words
    obj = configuration("mutating")
    (entry,) = (copy.deepcopy(e) for e in obj["webhooks"] if e["name"] == POD_ENTRY)
    entry["name"] = "first-pods"
    entry["objectSelector"]["matchExpressions"][0]["operator"] = "DoesNotExist"
    obj["webhooks"].append(entry)
    assert said(installed(mutating=obj), first_pods=True) == ()


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

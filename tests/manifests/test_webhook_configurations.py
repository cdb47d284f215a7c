"""Which reviews the API server is told to ask for, held against what the guard's code reviews."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.manifests.rendering import (
    MANIFESTS,
    OVERLAYS,
    Object,
    objects_of,
    overlay,
    the,
    webhooks,
)
from webhook.cluster.expected_entries import EXPECTED
from webhook.cluster.installation import Installation, definitions_needed, drift
from webhook.model import labels
from webhook.review.annotations import PROTECTED
from webhook.review.cpu_models import NO_NAME
from webhook.review.deciding import MUTATING, VALIDATING
from webhook.review.requester import GUARD
from webhook.serving.metrics import PATHS
from webhook.serving.worker import ANSWER_SECONDS

MUTATE, VALIDATE = PATHS
CONFIGURATIONS = {
    "MutatingWebhookConfiguration": (MUTATE, MUTATING),
    "ValidatingWebhookConfiguration": (VALIDATE, VALIDATING),
}
RESOURCES = {
    "VirtualMachine": "virtualmachines",
    "VirtualMachineInstance": "virtualmachineinstances",
    "VirtualMachineInstanceMigration": "virtualmachineinstancemigrations",
    "KubeVirt": "kubevirts",
    "Pod": "pods",
}


def asked(entry: Object) -> tuple[str, str, str]:
    """Return the group, resource and operation of an entry, which has one of each."""
    (rule,) = entry["rules"]
    (group,), (resource,), (operation,) = rule["apiGroups"], rule["resources"], rule["operations"]
    return group, resource, operation


def conditions(entry: Object) -> str:
    return "\n".join(c["expression"] for c in entry.get("matchConditions", ()))


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_all_that_the_guard_reviews_is_asked_and_nothing_else(name: str, kind: str) -> None:
    where, reviewed = CONFIGURATIONS[kind]
    entries = the(overlay(name), kind)["webhooks"]
    assert {entry["clientConfig"]["service"]["path"] for entry in entries} == {where}
    expected = {(group, RESOURCES[kind], operation) for group, kind, operation in reviewed}
    if name == "drain" and reviewed is MUTATING:
        expected.add(("", "pods/eviction", "CREATE"))
    assert {asked(entry) for entry in entries} == expected


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_entry_is_careful_with_the_cluster(name: str) -> None:
    for entry in webhooks(overlay(name)):
        assert entry["timeoutSeconds"] == 2 < ANSWER_SECONDS, entry["name"]
        assert entry["sideEffects"] == "NoneOnDryRun"
        assert entry["matchPolicy"] == "Equivalent"
        assert entry["admissionReviewVersions"] == ["v1"]
        assert entry.get("reinvocationPolicy", "Never") == "Never"
        (rule,) = entry["rules"]
        assert rule["scope"] == "Namespaced"
        assert rule["apiVersions"] == ["v1"]
        assert not {"*", "*/*"} & {*rule["apiGroups"], *rule["resources"], *rule["operations"]}
        (left_out,) = entry["namespaceSelector"]["matchExpressions"]
        assert left_out == {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": ["kube-system", "migration-guard"],
        }


@pytest.mark.parametrize("name", OVERLAYS)
def test_entries_have_names_of_their_own_and_no_certificate_in_the_repository(name: str) -> None:
    entries = webhooks(overlay(name))
    assert len({entry["name"] for entry in entries}) == len(entries)
    assert not any("caBundle" in entry["clientConfig"] for entry in entries)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_mutating_configuration_comes_before_that_of_kubevirt(name: str) -> None:
    metadata = the(overlay(name), "MutatingWebhookConfiguration")["metadata"]
    assert metadata["name"] < "virt-api-mutator"


def entry_of(resource: str, operation: str, kind: str) -> Object:
    """Return the entry for a resource and an operation, of an overlay in which there is one."""
    (entry,) = (
        entry
        for entry in the(overlay("observe"), kind)["webhooks"]
        if asked(entry)[1:] == (resource, operation)
    )
    return entry


def test_pods_are_asked_about_by_the_labels_that_the_code_looks_for() -> None:
    entry = entry_of("pods", "CREATE", "MutatingWebhookConfiguration")
    selector = entry["objectSelector"]
    assert selector["matchLabels"] == {labels.POD_KIND: labels.LAUNCHER}
    assert selector["matchExpressions"] == [{"key": labels.MIGRATION_UID, "operator": "Exists"}]
    assert f'"{labels.EPHEMERAL_PROVISIONING}"' in conditions(entry)


def test_the_annotations_that_are_protected_are_those_that_the_code_protects() -> None:
    entry = entry_of("virtualmachineinstancemigrations", "UPDATE", "ValidatingWebhookConfiguration")
    named = set(re.findall(r'"(migration-guard\.io/[^"]+)"', conditions(entry)))
    assert named == set(PROTECTED)
    assert f'"{GUARD}"' in conditions(entry)


@pytest.mark.parametrize(
    ("resource", "operation"),
    [("virtualmachines", "CREATE"), ("virtualmachineinstances", "CREATE"), ("kubevirts", "UPDATE")],
)
def test_the_models_that_name_none_are_those_of_the_code(resource: str, operation: str) -> None:
    expression = conditions(entry_of(resource, operation, "ValidatingWebhookConfiguration"))
    (listed,) = re.findall(r"in (\[[^]]*host-model[^]]*\])", expression)
    assert listed == str(list(NO_NAME)).replace("'", '"')


def drift_of(objects: list[Object]) -> tuple[str, ...]:
    mutating, validating = (the(objects, kind) for kind in CONFIGURATIONS)
    definition = {"spec": {"versions": [{"name": "v1", "served": True}]}}
    found = Installation(mutating, validating, dict.fromkeys(definitions_needed(), definition))
    return drift(
        found,
        kubevirt_namespaces=("harvester-system", "kubevirt"),
        first_pods=False,
        distrust=lambda bundle, name: None,
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_guard_itself_finds_no_drift_in_it_but_the_ca_that_is_yet_to_come(name: str) -> None:
    objects = overlay(name)
    said = drift_of(objects)
    assert len(said) == len(webhooks(objects))
    assert all("has no caBundle" in words for words in said)


def test_the_guard_knows_every_entry_of_all_components_as_it_is_rendered(tmp_path: Path) -> None:
    """``drift`` holds an installation against this table, so the two must not part."""
    components = ("strict", "drain", "first-boot")
    here = os.path.relpath(MANIFESTS, tmp_path.resolve())
    wanted = {
        "resources": [f"{here}/base"],
        "components": [f"{here}/components/{name}" for name in components],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(wanted), encoding="utf-8")
    objects = objects_of(tmp_path.resolve())
    entries = {entry["name"]: entry for entry in webhooks(objects)}
    assert entries.keys() == EXPECTED.keys()
    for name, entry in entries.items():
        expected = EXPECTED[name]
        written = {condition["name"] for condition in entry.get("matchConditions", ())}
        assert written == {*expected.conditions, *(expected.strict or {})}, name
        assert (entry["failurePolicy"] == "Fail") is (expected.strict is not None), name
    assert all("has no caBundle" in words for words in drift_of(objects))


def test_every_component_that_brings_webhooks_is_among_them() -> None:
    bringing = {
        path.parent.name
        for path in (MANIFESTS / "components").glob("*/*.yaml")
        if "\nwebhooks:" in path.read_text(encoding="utf-8")
    }
    assert bringing == {"strict", "drain", "first-boot"}


def test_strict_knows_a_workload_update_by_the_annotation_that_the_code_looks_for() -> None:
    entries = the(overlay("strict"), "ValidatingWebhookConfiguration")["webhooks"]
    (entry,) = (entry for entry in entries if entry["name"].startswith("workload-update"))
    assert f'"{labels.WORKLOAD_UPDATE}"' in conditions(entry)

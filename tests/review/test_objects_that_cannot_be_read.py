"""An object, or a fact, with a field of a type that its kind cannot have."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.review.asking import (
    CONTROLLER,
    NOW,
    Cluster,
    launcher,
    migration,
    new_id,
    node,
    target_pod,
    vmi,
)
from webhook.review.answer import MUTATE, VALIDATE, Answerer

NODES = (node("a", "XYZ"), node("b", "ABC"))
WORKED = (*NODES, vmi(), launcher())
BLIND = {"decision": "ID", "outcome": "blind"}


def answered(path: str, obj: dict[str, Any], *facts: dict[str, Any], **about: str) -> Any:
    cluster = Cluster(*facts, configuration=about.pop("configuration", ""))
    answerer = Answerer(lambda: cluster.facts, lambda: cluster.configuration, lambda: NOW, new_id)
    group, _, version = obj["apiVersion"].rpartition("/")
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": {"group": group, "version": version, "kind": obj["kind"]},
            "operation": "CREATE",
            "namespace": "prod",
            "userInfo": {"username": about.get("user", "alice")},
            "object": obj,
        },
    }
    response = json.loads(answerer.answer(path, json.dumps(review).encode()).body)["response"]
    # Every id is a new one; what is compared says where one stands.
    if "auditAnnotations" in response:
        own = response["auditAnnotations"]["decision"]
        response = json.loads(json.dumps(response).replace(own, "ID"))
    if "patch" in response:
        response["patch"] = json.loads(base64.b64decode(response["patch"]))
    return response


def test_a_migration_that_cannot_be_read_is_left_to_the_api_servers_schema() -> None:
    broken = migration()
    broken["spec"]["vmiName"] = ["web"]

    blind = {"uid": "u", "allowed": True, "auditAnnotations": BLIND}
    assert answered(MUTATE, broken, *WORKED) == blind
    assert answered(VALIDATE, broken, *WORKED) == {
        **blind,
        "warnings": ["not judged: spec.vmiName: a string is wanted here (decision ID)"],
    }


@pytest.mark.parametrize("path", [MUTATE, VALIDATE])
def test_a_pod_that_cannot_be_read_is_left_alone(path: str) -> None:
    broken = target_pod()
    broken["spec"]["tolerations"] = "all"
    facts = (*WORKED, migration(uid="uid-m"))

    response = answered(path, broken, *facts, user=CONTROLLER)

    assert response["allowed"]
    assert "patch" not in response


def unreadable_vmi() -> dict[str, Any]:
    """Make a VMI of which only the demands for its migration cannot be worked out."""
    return vmi(runtimeClassName=["a"])


def test_a_vmi_among_the_facts_that_cannot_be_read_makes_the_guard_blind() -> None:
    response = answered(VALIDATE, migration(), *NODES, unreadable_vmi())

    assert response["allowed"]
    assert response["warnings"] == [
        "not judged: runtimeClassName: a string is wanted here (decision ID)"
    ]
    assert response["auditAnnotations"] == BLIND


def test_when_blind_deny_refuses_then() -> None:
    facts = (*NODES, unreadable_vmi())
    response = answered(VALIDATE, migration(), *facts, configuration="whenBlind: deny")

    assert not response["allowed"]
    assert "runtimeClassName" in response["status"]["message"]
    assert response["status"]["message"].endswith("Decision ID.")
    assert response["auditAnnotations"] == {"decision": "ID", "outcome": "refused"}
    assert answered(MUTATE, migration(), *facts, configuration="whenBlind: deny")["allowed"]

"""Ids, patches and answers of single requests: what nobody can forge, and what stays minimal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from tests.review.asking import (
    CONTROLLER,
    NOW,
    Cluster,
    launcher,
    migration,
    new_id,
    node,
    notes_of,
    vm,
    vmi,
)
from webhook.review.admission import audit_annotations, review_of_object
from webhook.review.deciding import both_passes, validate
from webhook.review.patch import Patch, pointer

DECISION = "migration-guard.io/decision"
OVERRIDE = "migration-guard.io/override"
UNLIKE = (node("a", "XYZ"), node("b", "ABC"))


def validated(cluster: Cluster, written: str, of: str = "web") -> str:
    """Return the id of the validating pass alone over a migration that carries an id."""
    review = review_of_object(migration(of, **{DECISION: written}), username="alice")
    return validate(
        review, cluster.facts, cluster.configuration, NOW, new_id, cluster.memory
    ).decision_id


def test_the_validating_pass_takes_over_the_id_that_was_written() -> None:
    written = new_id()
    assert validated(Cluster(node("a"), node("b"), vmi(), launcher()), written) == written


@pytest.mark.parametrize("forged", ["", "x", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
def test_an_id_that_is_no_uuid_of_version_7_is_not_taken_over(forged: str) -> None:
    assert validated(Cluster(node("a"), node("b"), vmi(), launcher()), forged) != forged


def test_an_id_that_belongs_to_another_object_is_not_taken_over() -> None:
    objects = (vmi(), vmi("db"), launcher(), launcher("db"))
    cluster = Cluster(node("a"), node("b"), *objects)
    written = new_id()
    assert validated(cluster, written) == written
    assert validated(cluster, written, of="db") != written


def test_a_pointer_escapes_tilde_and_slash() -> None:
    assert pointer(("metadata", "a/b~c")) == "/metadata/a~1b~0c"


@pytest.mark.parametrize(
    "obj", [{}, {"spec": None}, {"spec": {}}, {"spec": {"nodeSelector": None}}]
)
def test_missing_and_null_parents_are_created(obj: dict[str, Any]) -> None:
    patch = Patch(obj)
    patch.set(("spec", "nodeSelector", "a/b"), "x")
    patch.set(("spec", "nodeSelector", "c~d"), "y")
    assert {op["op"] for op in patch.operations} <= {"add", "test"}
    after = jsonpatch.apply_patch(obj, list(patch.operations))
    assert after == {"spec": {"nodeSelector": {"a/b": "x", "c~d": "y"}}}


def test_what_a_patch_makes_anew_is_made_whole_by_one_operation() -> None:
    obj: dict[str, Any] = {"spec": {}}
    patch = Patch(obj)
    for wish in ({"weight": 1}, {"weight": 2}):
        patch.append(("spec", "affinity", "wishes"), wish)
    patch.set(("spec", "affinity", "note"), "x")
    made = {"wishes": [{"weight": 1}, {"weight": 2}], "note": "x"}
    assert patch.operations == ({"op": "add", "path": "/spec/affinity", "value": made},)
    assert obj == {"spec": {}}


def test_audit_annotations_name_decision_rule_and_outcome() -> None:
    decision = Cluster(*UNLIKE, vmi(), launcher()).ask(migration())
    assert audit_annotations(decision) == {
        "decision": decision.decision_id,
        "rule": "incompatible-target",
        "outcome": "refused",
    }


def test_a_refusal_does_not_depend_on_the_order_of_nodes() -> None:
    nodes = [node("a"), *(node(f"n{n}", f"M{n % 5}") for n in range(20))]
    told = set()
    for order in (nodes, nodes[::-1]):
        decision = Cluster(*order, vmi(), launcher()).ask(migration())
        told.add(decision.message.replace(decision.decision_id, "ID"))
    assert len(told) == 1


def test_a_chosen_node_with_passing_obstacles_is_never_refused() -> None:
    cordoned = node("b")
    cordoned["spec"] = {"unschedulable": True}
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": "b"}
    decision = Cluster(node("a"), cordoned, vmi(), launcher()).ask(asked)
    assert (decision.allowed, decision.outcome) == (True, "warned")


def test_a_source_with_two_vendor_labels_is_warned_about() -> None:
    source = node("a", **{"cpu-vendor.node.kubevirt.io/AMD": "true"})
    decision = Cluster(source, node("b"), vmi(), launcher()).ask(migration())
    assert decision.allowed
    assert any("vendor" in text for text in decision.warnings)


def test_a_node_without_labels_does_not_run_kubevirt() -> None:
    bare = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare"}}
    decision = Cluster(node("a"), bare, vmi(), launcher()).ask(migration())
    assert decision.outcome == "refused"
    assert "1 node does not run KubeVirt" in decision.message


def test_a_refusal_with_thousands_of_nodes_and_hundreds_of_labels_stays_short() -> None:
    features = {f"cpu-feature.node.kubevirt.io/f{n}": "true" for n in range(200)}
    guest_pod = launcher(selector=features, migrated=True)
    nodes = [node("a", **features), *(node(f"n{n}", f"M{n % 24}") for n in range(5000))]
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": "n7"}
    decision = Cluster(*nodes, vmi(), guest_pod).ask(asked)
    assert decision.outcome == "refused"
    assert len(decision.message) <= 1000
    assert decision.decision_id in decision.message


@pytest.mark.parametrize("change", ["status", "labels", "finalizers"])
def test_an_update_of_status_labels_or_finalizers_says_nothing(change: str) -> None:
    old = vm(model="Nonesuch")
    new = vm(model="Nonesuch")
    if change == "status":
        new["status"] = {"ready": True}
    else:
        new["metadata"][change] = {"x": "y"} if change == "labels" else ["x"]
    decision = Cluster(*UNLIKE, vmi(), launcher()).ask(new, old=old)
    assert (decision.allowed, decision.warnings, decision.patch) == (True, (), ())


def test_an_override_at_creation_of_a_vmi_does_not_count() -> None:
    guest = vmi()
    guest["metadata"]["annotations"] = {OVERRIDE: "carried", f"{OVERRIDE}-by": "root@uid-old"}
    cluster = Cluster(*UNLIKE)
    cluster.ask(guest, groups=("system:masters",))
    kept = notes_of(cluster.after).get(f"{OVERRIDE}-by", "")
    assert not kept.endswith("@uid-web")


def test_a_pod_by_the_controller_for_an_unknown_vmi_is_left_alone() -> None:
    cluster = Cluster(*UNLIKE)
    pod = launcher("ghost")
    decision = cluster.ask(pod, user=CONTROLLER)
    assert (decision.allowed, decision.patch, cluster.after) == (True, (), pod)


@pytest.mark.parametrize("created", [migration, vmi])
def test_a_dry_run_ties_no_id_to_its_object(created: Any) -> None:
    cluster = Cluster(node("a"), node("b"), vmi(), launcher())
    decision = cluster.ask(created(), dry_run=True)
    assert cluster.memory.claim(decision.decision_id, "somebody else")


def test_a_dry_run_does_not_take_over_another_objects_id() -> None:
    cluster = Cluster(node("a"), node("b"), vmi(), launcher())
    written = new_id()
    assert cluster.memory.claim(written, "somebody else")
    review = review_of_object(migration(**{DECISION: written}), username="alice", dry_run=True)
    decision = validate(review, cluster.facts, cluster.configuration, NOW, new_id, cluster.memory)
    assert decision.decision_id != written


@pytest.mark.parametrize("subresource", ["status", "scale", "eviction"])
def test_a_subresource_is_not_reviewed(subresource: str) -> None:
    cluster = Cluster(*UNLIKE, vmi(), launcher())
    for obj in (migration(), vmi(), vm(), launcher()):
        review = replace(review_of_object(obj, username="alice"), subresource=subresource)
        decision, after = both_passes(
            review, cluster.facts, cluster.configuration, NOW, new_id, cluster.memory
        )
        assert (decision.outcome, decision.patch, after) == ("not-reviewed", (), obj)


def test_an_author_of_an_override_that_is_forged_on_a_running_vmi_is_emptied() -> None:
    forged = vmi()
    forged["metadata"]["annotations"] = {OVERRIDE: "mine", f"{OVERRIDE}-by": "root@uid-web"}
    cluster = Cluster(*UNLIKE, vmi(), launcher())
    assert cluster.ask(forged, old=vmi()).allowed
    assert notes_of(cluster.after)[f"{OVERRIDE}-by"] == ""


def test_an_update_that_touches_no_override_keeps_its_author() -> None:
    old = vmi()
    old["metadata"]["annotations"] = {OVERRIDE: "mine", f"{OVERRIDE}-by": "root@uid-web"}
    new = vmi()
    new["metadata"]["annotations"] = dict(old["metadata"]["annotations"], note="x")
    assert Cluster(*UNLIKE, vmi(), launcher()).ask(new, old=old).patch == ()


def test_hostile_names_stay_short_and_printable_in_every_warning() -> None:
    bad = "x\n\x1b[31m" + "y" * 5000
    tainted = node("b", zone="z")
    tainted["spec"] = {"taints": [{"key": bad, "value": bad, "effect": "NoSchedule"}]}
    asked = migration(**{OVERRIDE: bad})
    asked["spec"]["addedNodeSelector"] = {"zone": bad}
    guest = vmi(schedulerName=bad, nodeSelector={"zone": "z"})
    decision = Cluster(node("a", zone="z"), tainted, guest, launcher()).ask(asked, user=bad)
    assert decision.warnings
    assert all(text.isprintable() and len(text) <= 256 for text in decision.warnings)
    assert sum(map(len, decision.warnings)) <= 4096

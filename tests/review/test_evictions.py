"""An eviction is judged as the evacuation that it asks for (docs/rules.md, "Evictions")."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import captured_cluster
from tests.review.asking import (
    CONTROLLER,
    NOW,
    UPGRADE,
    Cluster,
    kubevirt,
    launcher,
    migration,
    new_id,
    node,
    vmi,
)
from webhook.audit.events import events_of
from webhook.audit.recording import is_kept, record_of
from webhook.review.admission import render, review_of_document, review_of_object
from webhook.review.deciding import mutate, validate
from webhook.review.decision import Circumstances
from webhook.review.ids import is_decision_id

Object = dict[str, Any]


def pod(of: str = "web", at: str = "a", **more: Any) -> Object:
    """Make a launcher pod that says whose it is, as virt-controller's do."""
    obj = launcher(of, at)
    obj["metadata"]["annotations"] = {"kubevirt.io/domain": of}
    obj["metadata"].update(more)
    return obj


def instance(strategy: str = "LiveMigrate", migratable: str = "True") -> Object:
    obj = vmi()
    if strategy:
        obj["spec"]["evictionStrategy"] = strategy
    obj["status"]["conditions"] = [{"type": "LiveMigratable", "status": migratable}]
    return obj


def eviction(name: str = "virt-launcher-web") -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": "prod"},
    }


STUCK = (node("a", "XYZ"), node("b", "ABC"), instance(), pod())
MOVABLE = (node("a", "XYZ"), node("b", "XYZ"), instance(), pod())


def test_one_that_no_other_node_can_take_is_refused_with_the_reason_and_the_way_out() -> None:
    decision = Cluster(*STUCK).ask(eviction())
    assert not decision.allowed
    assert decision.message.startswith(
        "eviction of VM prod/web from node a refused: no other node can take it: b lacks "
        "cpu-model-migration.node.kubevirt.io/XYZ"
    )
    assert '"123"' in decision.message
    assert decision.message.endswith(f"Decision {decision.decision_id}.")
    assert decision.origin == "evacuation"


def test_the_refusal_says_try_again_as_kubevirts_own_does() -> None:
    cluster = Cluster(*STUCK)
    review = review_of_object(eviction(), username="admin")
    decision = mutate(review, cluster.facts, cluster.configuration, NOW, new_id)
    status = json.loads(render(review, decision))["response"]["status"]
    assert (status["code"], status["reason"]) == (429, "TooManyRequests")


def test_one_that_can_move_is_left_to_kubevirt() -> None:
    decision = Cluster(*MOVABLE).ask(eviction())
    assert (decision.allowed, decision.outcome, decision.warnings) == (True, "allowed", ())


def test_one_that_must_wait_is_left_to_kubevirt_which_marks_it() -> None:
    cordoned = node("b", "XYZ")
    cordoned["spec"] = {"unschedulable": True}
    decision = Cluster(node("a"), cordoned, instance(), pod()).ask(eviction())
    assert (decision.allowed, decision.warnings) == (True, ())


@pytest.mark.parametrize(
    ("of_vmi", "of_cluster", "allowed"),
    [
        ("LiveMigrate", "", False),
        ("LiveMigrateIfPossible", "", False),
        ("", "LiveMigrate", False),
        ("None", "LiveMigrate", True),
        ("External", "", True),
        ("", "", True),
    ],
)
def test_only_one_that_kubevirt_would_migrate_is_judged(
    of_vmi: str, of_cluster: str, allowed: bool
) -> None:
    cluster = kubevirt()
    if of_cluster:
        cluster["spec"]["configuration"]["evictionStrategy"] = of_cluster
    found = Cluster(node("a", "XYZ"), node("b", "ABC"), instance(of_vmi), pod(), cluster)
    decision = found.ask(eviction())
    assert decision.allowed == allowed
    assert decision.outcome == ("left-to-kubevirt" if allowed else "refused")


def under_way() -> Object:
    return {**migration(uid="uid-m"), "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param((instance(migratable="False"), pod()), id="KubeVirt cannot migrate it"),
        pytest.param(
            (instance(), pod(creationTimestamp="2026-11-26T10:00:00Z"), under_way()),
            id="it is being migrated",
        ),
        pytest.param(
            (
                instance(),
                pod(creationTimestamp="2026-11-26T10:00:00Z"),
                pod(name="newer", creationTimestamp="2026-11-26T11:00:00Z"),
            ),
            id="its pod is not the one it runs in",
        ),
    ],
)
def test_what_kubevirt_answers_itself_is_left_to_it(objects: tuple[Object, ...]) -> None:
    decision = Cluster(node("a", "XYZ"), node("b", "ABC"), *objects).ask(eviction())
    assert (decision.allowed, decision.outcome) == (True, "left-to-kubevirt")


def test_kubevirts_controller_may_evict_to_restart() -> None:
    assert Cluster(*STUCK).ask(eviction(), user=CONTROLLER).outcome == "left-to-kubevirt"


def test_the_pod_of_something_else_is_not_reviewed() -> None:
    assert Cluster(*STUCK).ask(eviction("postgres-0")).outcome == "not-reviewed"


def test_the_mode_is_that_of_evacuations() -> None:
    text = "rules: {incompatible-target: {origins: {evacuation: warn}}}"
    decision = Cluster(*STUCK, configuration=text).ask(eviction())
    assert (decision.allowed, decision.outcome) == (True, "warned")
    assert decision.warnings[0].startswith("eviction of VM prod/web from node a cannot succeed")


def test_while_harvester_upgrades_it_is_only_warned_about() -> None:
    assert Cluster(*STUCK, UPGRADE).ask(eviction()).outcome == "warned"


def test_an_override_on_the_vmi_lets_it_through() -> None:
    overridden = instance()
    overridden["metadata"]["annotations"] = {
        "migration-guard.io/override": "the room is on fire",
        "migration-guard.io/override-by": "root@uid-web",
    }
    decision = Cluster(node("a", "XYZ"), node("b", "ABC"), overridden, pod()).ask(eviction())
    assert (decision.allowed, decision.outcome) == (True, "overridden")
    assert decision.overridden_by == "root"


def test_without_facts_it_is_left_to_kubevirt_and_counted_as_blind() -> None:
    bare = {**node("a"), "metadata": {"name": "a"}}
    decision = Cluster(bare, instance(), pod(), configuration="whenBlind: deny").ask(eviction())
    assert (decision.allowed, decision.outcome) == (True, "blind")


def test_too_late_it_is_left_to_kubevirt() -> None:
    cluster = Cluster(*STUCK)
    review = review_of_object(eviction())
    decision = mutate(
        review, cluster.facts, cluster.configuration, NOW, new_id, late="no time was left"
    )
    assert (decision.allowed, decision.outcome) == (True, "blind")


def test_the_validating_pass_has_nothing_to_say_about_it() -> None:
    cluster = Cluster(*STUCK)
    review = review_of_object(eviction())
    decision = validate(review, cluster.facts, cluster.configuration, NOW, new_id)
    assert decision.outcome == "not-reviewed"


def test_a_drain_that_tries_again_reads_the_same_id() -> None:
    cluster = Cluster(*STUCK)
    first, second = cluster.ask(eviction()), cluster.ask(eviction())
    assert is_decision_id(first.decision_id)
    assert first.message == second.message


def test_a_refusal_is_kept_and_told_on_the_vmi() -> None:
    cluster = Cluster(*STUCK)
    review = review_of_object(eviction(), username="admin")
    decision = mutate(review, cluster.facts, cluster.configuration, NOW, new_id)
    assert is_kept(review, decision)
    record = record_of(review, decision, Circumstances(True, cluster.facts, NOW))
    assert (record.vm, record.source, record.evacuated_node) == ("prod/web", "a", "a")
    assert record.obstacles
    (event,) = events_of(record)
    assert (event.about.api_version, event.about.kind) == ("kubevirt.io/v1", vmi()["kind"])
    assert (event.about.name, event.about.uid) == ("web", "uid-web")
    assert event.reason == "EvictionRefused"
    assert event.message == decision.message


@pytest.mark.parametrize(
    ("captured", "kept"),
    [("pod-eviction-by-drain", True), ("pod-eviction-by-drain-dry-run", False)],
)
def test_a_dry_run_of_kubectl_drain_is_answered_and_not_kept(captured: str, kept: bool) -> None:
    stuck = instance()
    stuck["metadata"]["namespace"] = "default"
    source = pod(name="virt-launcher-source", namespace="default")
    cluster = Cluster(node("a", "XYZ"), node("b", "ABC"), stuck, source)
    review = review_of_document(
        captured_cluster.captured(f"reviews-1.8.4/{captured}-mutating.json")
    )
    decision = mutate(review, cluster.facts, cluster.configuration, NOW, new_id)
    assert not decision.allowed
    assert is_kept(review, decision) == kept

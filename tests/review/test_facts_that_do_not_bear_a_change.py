"""Facts that are too old and objects that cannot be read set nothing and refuse nothing.

Source of the rule: docs/rules.md, "Blind".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.objects import inventory
from tests.review.asking import (
    CONTROLLER,
    UPGRADE,
    Cluster,
    kubevirt,
    launcher,
    migration,
    node,
    notes_of,
    target_pod,
    vm,
    vmi,
)
from webhook.review.decision import Blind, Decision

PRESET: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstancePreset",
    "metadata": {"name": "p", "namespace": "prod"},
    "spec": {"selector": {}, "domain": {"cpu": {"cores": 2}}},
}
TOO_OLD = "facts are missing or too old: "
REFUSED = (node("a", "XYZ"), node("b", "ABC"), vmi(), launcher())
"""A migration that is refused: b lacks the CPU of a."""


def with_stale(*kinds: str, objects: Any = REFUSED, configuration: str = "") -> Cluster:
    cluster = Cluster(*objects, configuration=configuration)
    cluster.facts = replace(cluster.facts, stale=kinds)
    return cluster


def with_broken(*objects: dict[str, Any], configuration: str = "") -> Cluster:
    """Make a cluster of which some objects cannot be read."""
    cluster = Cluster(configuration=configuration)
    cluster.facts = inventory(*objects).snapshot
    return cluster


def broken(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "spec": "nothing of that kind"}


def new_vmi(model: str = "", **spec: Any) -> dict[str, Any]:
    made = vmi("new", model, at="", architecture="amd64", **spec)
    made["status"] = {}
    return made


def left_alone(decision: Decision, why: str) -> None:
    assert (decision.outcome, decision.allowed, decision.patch) == ("blind", True, ())
    assert decision.warnings == (f"nothing changed: {why} (decision {decision.decision_id})",)


@pytest.mark.parametrize("kind", ["kubevirts", "virtualmachineinstancepresets"])
def test_no_default_model_is_set_while_what_it_rests_on_is_too_old(kind: str) -> None:
    decision = with_stale(kind).ask(new_vmi())

    left_alone(decision, TOO_OLD + kind)
    assert decision.blind is Blind.STALE_FACTS


def test_a_common_model_is_not_set_while_nodes_are_too_old() -> None:
    common = with_stale("nodes", configuration="cpuModel: {default: common}")
    left_alone(common.ask(new_vmi()), TOO_OLD + "nodes")

    others = with_stale("nodes", "virtualmachines")
    assert others.ask(new_vmi()).outcome == "changed"


def test_a_model_that_the_settings_name_does_not_rest_on_the_kubevirt_cr() -> None:
    cluster = with_stale("kubevirts", configuration='cpuModel: {default: "123"}')

    cluster.ask(new_vmi())

    assert cluster.after["spec"]["domain"]["cpu"]["model"] == "123"


def test_a_model_that_the_vm_names_is_noted_whatever_is_too_old() -> None:
    cluster = with_stale("kubevirts", "virtualmachineinstancepresets")

    cluster.ask(new_vmi("123"))

    assert notes_of(cluster.after)["migration-guard.io/cpu-model-source"] == "vm"


def test_who_named_the_model_of_an_instancetype_is_not_noted_while_vms_are_too_old() -> None:
    named = new_vmi("123")
    named["metadata"]["annotations"] = {"kubevirt.io/instancetype-name": "small"}

    assert with_stale("virtualmachines").ask(named).patch == ()


def test_a_named_model_is_not_called_unknown_while_nodes_are_too_old() -> None:
    decision = with_stale("nodes").ask(vm(model="Penryn"))

    assert decision.outcome == "blind"
    said = f"not judged: {TOO_OLD}nodes (decision {decision.decision_id})"
    assert decision.warnings == (said,)


def test_a_changed_model_is_not_held_against_a_vmi_of_yesterday() -> None:
    enforced = "rules: {restart-required: {mode: enforce}, unknown-cpu-model: {mode: off}}"
    objects = (*REFUSED, vmi("web", "456"))
    changed, before = vm(model="123"), vm(model="456")
    assert not Cluster(*objects, configuration=enforced).ask(changed, old=before).allowed

    for kind in ("virtualmachineinstances", "kubevirts"):
        cluster = with_stale(kind, objects=objects, configuration=enforced)
        decision = cluster.ask(changed, old=before)
        assert (decision.allowed, decision.outcome) == (True, "blind")


@pytest.mark.parametrize(
    "kind",
    ["virtualmachineinstances", "kubevirts", "persistentvolumeclaims", "migrationpolicies"],
)
def test_no_deadline_is_written_while_what_it_rests_on_is_too_old(kind: str) -> None:
    cluster = with_stale(kind)

    cluster.ask(migration(**{"migration-guard.io/completion-timeout": "forged"}))

    written = notes_of(cluster.after)
    assert written["migration-guard.io/completion-timeout"] == ""
    assert "migration-guard.io/completion-deadline" not in written
    assert "migration-guard.io/decision" in written


def test_a_deadline_does_not_rest_on_nodes() -> None:
    cluster = with_stale("nodes")

    cluster.ask(migration())

    assert "migration-guard.io/completion-deadline" in notes_of(cluster.after)


@pytest.mark.parametrize("kind", ["nodes", "pods", "kubevirts"])
def test_a_target_pod_gets_no_selectors_from_facts_that_are_too_old(kind: str) -> None:
    deadline = {"migration-guard.io/completion-deadline": "2026-11-26T13:00:00Z"}
    running = migration(uid="uid-m", **deadline)
    objects = (node("a"), node("b"), vmi(), launcher(), running)
    sound = Cluster(*objects)
    sound.ask(target_pod(), user=CONTROLLER)
    assert len(sound.after["spec"]["nodeSelector"]) > 1

    cluster = with_stale(kind, objects=objects)
    decision = cluster.ask(target_pod(), user=CONTROLLER)

    assert decision.outcome == "blind"
    assert cluster.after["spec"] == target_pod()["spec"]
    # What the migration says of itself holds all the same.
    assert notes_of(cluster.after).items() >= deadline.items()


def test_a_target_pod_is_not_called_somebody_elses_by_facts_that_are_too_old() -> None:
    left_alone(
        with_stale("virtualmachineinstancemigrations").ask(target_pod(), user=CONTROLLER),
        TOO_OLD + "virtualmachineinstancemigrations",
    )


def test_where_a_vm_starts_is_left_open_while_nodes_are_too_old() -> None:
    pod = target_pod()
    del pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"]
    cluster = with_stale("nodes", configuration="firstBoot: prefer-migratable")

    left_alone(cluster.ask(pod, user=CONTROLLER), TOO_OLD + "nodes")


def test_a_model_for_the_whole_cluster_is_not_refused_by_nodes_that_are_too_old() -> None:
    assert not Cluster(*REFUSED).ask(kubevirt("Penryn"), old=kubevirt()).allowed

    decision = with_stale("nodes").ask(kubevirt("Penryn"), old=kubevirt())

    assert (decision.allowed, decision.outcome) == (True, "blind")


def test_a_node_that_cannot_be_read_never_leads_to_a_refusal() -> None:
    assert not Cluster(*REFUSED).ask(migration()).allowed

    decision = with_broken(*REFUSED, broken(node("c"))).ask(migration())

    assert (decision.allowed, decision.outcome, decision.blind) == (True, "blind", Blind.UNREADABLE)
    (warning,) = decision.warnings
    assert warning.startswith("not judged: node c cannot be read: spec: ")


def test_a_node_that_cannot_be_read_is_not_named_where_nodes_are_not() -> None:
    cluster = with_broken(*REFUSED, broken(node("c")), configuration="messages: {nodeNames: false}")

    (said,) = cluster.ask(migration()).warnings
    assert said.startswith("not judged: 1 node cannot be read (decision ")


def test_all_that_rests_on_all_nodes_waits_for_one_that_cannot_be_read() -> None:
    cluster = with_broken(*REFUSED, broken(node("c")), configuration="cpuModel: {default: common}")

    assert cluster.ask(kubevirt("Penryn"), old=kubevirt()).outcome == "blind"
    assert cluster.ask(vm(model="Penryn")).outcome == "blind"
    assert cluster.ask(new_vmi()).patch == ()


def test_a_launcher_pod_that_cannot_be_read_counts_for_its_own_vm_alone() -> None:
    other, pod = vmi("other"), launcher("other")
    cluster = with_broken(*REFUSED, other, broken(pod))

    assert not cluster.ask(migration()).allowed
    decision = cluster.ask(migration("other"))

    assert (decision.allowed, decision.outcome) == (True, "blind")
    assert "pod prod/virt-launcher-other cannot be read" in decision.warnings[0]


def test_a_pod_that_does_not_say_whose_it_is_may_be_any_of_its_namespace() -> None:
    nobodys = launcher("other")
    nobodys["metadata"]["labels"] = "none"
    elsewhere = {**nobodys, "metadata": {**nobodys["metadata"], "namespace": "test"}}

    assert with_broken(*REFUSED, nobodys).ask(migration()).allowed
    assert not with_broken(*REFUSED, elsewhere).ask(migration()).allowed


def test_a_vm_is_not_refused_for_want_of_company_that_cannot_be_read() -> None:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "db"}},
    }
    wants = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    objects = (node("a"), node("b"), vmi(affinity=wants), launcher())
    enforced = "rules: {no-room-now: {mode: enforce}}"
    assert Cluster(*objects, configuration=enforced).ask(migration()).outcome == "refused"

    company = with_broken(*objects, broken(launcher("db", "b")), configuration=enforced)

    assert company.ask(migration()).outcome == "warned"


def test_a_runtime_class_that_cannot_be_read_counts_for_those_that_name_it() -> None:
    kata = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata"},
        "scheduling": "anywhere",
    }
    objects = (*REFUSED, vmi("other", runtimeClassName="kata"), launcher("other"), kata)
    cluster = with_broken(*objects)

    assert not cluster.ask(migration()).allowed
    assert cluster.ask(migration("other")).outcome == "blind"


def test_without_the_kubevirt_cr_that_is_there_nothing_is_judged_or_set() -> None:
    cluster = with_broken(*REFUSED, broken(kubevirt("123")))

    assert cluster.ask(migration()).outcome == "blind"
    left_alone(
        cluster.ask(new_vmi()),
        "KubeVirt kubevirt/kubevirt cannot be read: spec: a mapping is wanted here",
    )


def test_a_preset_that_cannot_be_read_counts_in_its_own_namespace() -> None:
    elsewhere = {**PRESET, "metadata": {"name": "p", "namespace": "test"}}

    assert with_broken(*REFUSED, broken(PRESET)).ask(new_vmi()).outcome == "blind"
    assert with_broken(*REFUSED, broken(elsewhere)).ask(new_vmi()).outcome == "changed"


def test_a_harvester_upgrade_that_cannot_be_read_counts_as_running() -> None:
    assert with_broken(*REFUSED, {**UPGRADE, "status": "?"}).facts.upgrading


def test_a_vmi_that_cannot_be_read_is_not_taken_as_one_that_is_not_there() -> None:
    facts = (node("a"), node("b"), broken(vmi()), launcher())
    decision = with_broken(*facts).ask(migration())

    assert (decision.outcome, decision.allowed) == ("blind", True)
    assert decision.warnings[0].startswith("not judged: VMI prod/web cannot be read: spec: ")
    assert with_broken(*facts, configuration="whenBlind: deny").ask(migration()).code == 403
    assert with_broken(*facts).ask(migration("ghost")).outcome == "left-to-kubevirt"

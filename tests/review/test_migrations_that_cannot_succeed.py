"""Rules incompatible-target, chosen-node, no-room-now and passthrough-cpu."""

from __future__ import annotations

import pytest

from tests.review.asking import (
    CONTROLLER,
    Cluster,
    kubevirt,
    launcher,
    migration,
    node,
    notes_of,
    vmi,
)

WORKED = (node("a", "XYZ"), node("b", "ABC"))
MODEL = "cpu-model-migration.node.kubevirt.io/"


def test_the_worked_example_is_refused_with_both_ways_out() -> None:
    decision = Cluster(*WORKED, vmi(), launcher()).ask(migration())
    assert (decision.outcome, decision.code, decision.allowed) == ("refused", 403, False)
    assert "b lacks cpu-model-migration.node.kubevirt.io/XYZ" in decision.message
    assert 'all nodes support, here "123" (2 of 2 nodes)' in decision.message
    assert "spec.configuration.cpuModel of the KubeVirt CR" in decision.message
    assert "spec.template.spec.domain.cpu.model" in decision.message
    assert "restart the VM" in decision.message
    assert decision.decision_id in decision.message


def test_with_a_model_that_both_nodes_have_the_migration_is_allowed() -> None:
    cluster = Cluster(*WORKED, vmi(model="123"), launcher())
    decision = cluster.ask(migration())
    assert decision.allowed
    assert decision.warnings == ()
    assert notes_of(cluster.after)["migration-guard.io/completion-timeout"] == "6400s"
    assert (
        notes_of(cluster.after)["migration-guard.io/completion-deadline"] == "2026-11-26T13:46:40Z"
    )
    basis = notes_of(cluster.after)["migration-guard.io/completion-basis"]
    assert basis == "8 GiB x 800 s/GiB; KubeVirt itself aborts after 1350 s"


def test_with_no_other_node_it_is_refused_and_says_so() -> None:
    decision = Cluster(node("a"), vmi(), launcher()).ask(migration())
    assert decision.outcome == "refused"
    assert "there is no other node" in decision.message
    assert "Add a node" in decision.message


def test_nodes_without_kubevirt_are_one_clause_that_counts_them() -> None:
    bare = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"infra-{n}"}} for n in range(3)
    ]
    decision = Cluster(*WORKED, *bare, vmi(), launcher()).ask(migration())
    assert "3 nodes do not run KubeVirt" in decision.message


def test_a_passing_obstacle_on_the_only_target_is_a_warning() -> None:
    target = node("b", "XYZ")
    target["spec"] = {"unschedulable": True}
    decision = Cluster(node("a", "XYZ"), target, vmi(), launcher()).ask(migration())
    assert (decision.outcome, decision.allowed) == ("warned", True)
    assert any("b is cordoned" in warning for warning in decision.warnings)


def test_a_source_without_host_model_label_is_refused_and_named() -> None:
    decision = Cluster(node("a", ""), node("b", "XYZ"), vmi(), launcher()).ask(migration())
    assert decision.outcome == "refused"
    assert '"a" has no label host-model-cpu.node.kubevirt.io/' in decision.message
    assert 'See that virt-handler runs on node "a"' in decision.message


def test_the_same_source_does_not_matter_for_a_named_model() -> None:
    decision = Cluster(node("a", ""), node("b"), vmi(model="123"), launcher()).ask(migration())
    assert decision.allowed
    assert decision.warnings == ()


def test_what_an_earlier_migration_left_is_said_to_be_remembered() -> None:
    old = launcher(selector={MODEL + "GONE": "true"}, migrated=True)
    decision = Cluster(node("a"), node("b"), vmi(), old).ask(migration())
    assert decision.outcome == "refused"
    assert "remembered from an earlier migration" in decision.message
    assert "restart the VM: it then forgets" in decision.message


def test_a_migrated_guest_that_remembers_no_model_is_warned_about() -> None:
    decision = Cluster(node("a"), node("b"), vmi(), launcher(migrated=True)).ask(migration())
    assert decision.allowed
    assert any("booted with is unknown" in warning for warning in decision.warnings)


def test_a_chosen_node_is_judged_alone() -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": "b"}
    cluster = Cluster(*WORKED, node("c", "XYZ"), vmi(), launcher())
    decision = cluster.ask(asked)
    assert decision.outcome == "refused"
    assert {r.rule for r in decision.rules if r.outcome == "refused"} == {"chosen-node"}
    assert "These would do: c." in decision.message


@pytest.mark.parametrize(
    ("host", "says"), [("nowhere", "no node has the label"), ("a", "runs there already")]
)
def test_a_chosen_node_that_cannot_be_is_refused(host: str, says: str) -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": host}
    decision = Cluster(node("a"), node("c"), vmi(), launcher()).ask(asked)
    assert decision.outcome == "refused"
    assert says in decision.message


def test_a_chosen_node_is_found_by_its_label_and_not_by_its_name() -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": "host-c"}
    named = node("c", **{"kubernetes.io/hostname": "host-c"})
    assert Cluster(node("a"), named, vmi(), launcher()).ask(asked).allowed


def test_an_added_selector_that_loses_is_warned_about() -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"zone": "east"}
    guest = vmi(nodeSelector={"zone": "west"})
    west = {"zone": "west"}
    decision = Cluster(node("a", **west), node("b", **west), guest, launcher()).ask(asked)
    assert decision.allowed
    assert any("zone=east has no effect: KubeVirt sets west" in w for w in decision.warnings)


def test_a_passthrough_guest_on_unlike_nodes_is_a_risk() -> None:
    decision = Cluster(*WORKED, vmi(model="host-passthrough"), launcher()).ask(migration())
    assert (decision.outcome, decision.allowed) == ("warned", True)
    assert any("host-passthrough" in warning for warning in decision.warnings)


def test_a_passthrough_guest_is_refused_when_the_rule_enforces() -> None:
    cluster = Cluster(
        *WORKED,
        vmi(model="host-passthrough"),
        launcher(),
        configuration="rules: {passthrough-cpu: {mode: enforce}}",
    )
    assert cluster.ask(migration()).outcome == "refused"


def test_a_missing_selector_is_added_where_kubevirt_forgets_it() -> None:
    feature = "cpu-feature.node.kubevirt.io/aes"
    guest = vmi(domain={"cpu": {"model": "host-model", "features": [{"name": "aes"}]}})
    cluster = Cluster(
        node("a", **{feature: "true"}),
        node("b", **{feature: "true"}),
        guest,
        launcher(selector={feature: "true"}),
    )
    decision = cluster.ask(migration())
    assert decision.outcome == "changed"
    assert cluster.after["spec"]["addedNodeSelector"] == {MODEL + "XYZ": "true"}


def test_an_addition_that_would_leave_no_node_is_left_out_of_a_warned_migration() -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"cpu-vendor.node.kubevirt.io/AMD": "true"}
    cluster = Cluster(
        node("a"),
        node("b", vendor="AMD"),
        vmi(),
        launcher(),
        configuration="rules: {incompatible-target: {mode: warn}}",
    )
    decision = cluster.ask(asked)
    assert decision.outcome == "warned"
    assert cluster.after["spec"] == asked["spec"]
    assert any("not added, because no node would be left" in w for w in decision.warnings)


@pytest.mark.parametrize(
    ("status", "conditions"),
    [
        ({"phase": "Succeeded"}, []),
        ({}, [{"type": "LiveMigratable", "status": "False", "reason": "SEVNotLiveMigratable"}]),
    ],
)
def test_what_virt_api_refuses_is_left_to_it(status: dict, conditions: list) -> None:
    guest = vmi()
    guest["status"] |= {**status, "conditions": conditions}
    decision = Cluster(*WORKED, guest, launcher()).ask(migration())
    assert (decision.outcome, decision.patch) == ("left-to-kubevirt", ())
    assert decision.allowed


def test_a_migration_of_a_vmi_that_does_not_exist_is_left_to_kubevirt() -> None:
    decision = Cluster(*WORKED).ask(migration("nobody"))
    assert (decision.outcome, decision.warnings, decision.patch) == ("left-to-kubevirt", (), ())


def test_a_vmi_that_is_not_running_is_allowed_with_a_warning() -> None:
    guest = vmi()
    guest["status"] = {"phase": "Scheduling"}
    decision = Cluster(*WORKED, guest).ask(migration())
    assert (decision.outcome, decision.allowed) == ("warned", True)
    assert any("not running" in warning for warning in decision.warnings)


def test_a_decentralized_migration_is_not_held_against_nodes() -> None:
    asked = migration()
    asked["spec"]["sendTo"] = {"migrationID": "x"}
    assert Cluster(*WORKED, vmi(), launcher()).ask(asked).allowed


def test_without_nodes_the_guard_is_blind_and_allows_with_one_warning() -> None:
    decision = Cluster(vmi(), launcher()).ask(migration())
    assert (decision.outcome, decision.allowed) == ("blind", True)
    assert len(decision.warnings) == 1


def test_when_blind_deny_refuses_users_and_nobody_else() -> None:
    cluster = Cluster(vmi(), configuration="whenBlind: deny")
    assert cluster.ask(migration()).outcome == "refused"
    evacuation = migration(**{"kubevirt.io/evacuationMigration": "a"})
    assert cluster.ask(evacuation, user=CONTROLLER).outcome == "blind"


def test_an_autoscaled_cluster_is_warned_only() -> None:
    cluster = Cluster(*WORKED, vmi(), launcher(), configuration="cluster: {autoscaled: true}")
    assert cluster.ask(migration()).outcome == "warned"


def test_while_kubevirt_rolls_out_labels_it_writes_do_not_refuse() -> None:
    rollout = kubevirt(targetKubeVirtVersion="v1.9.0")
    assert Cluster(*WORKED, rollout, vmi(), launcher()).ask(migration()).outcome == "warned"


def test_another_scheduler_is_not_foretold_by_taints() -> None:
    tainted = node("b")
    tainted["spec"] = {"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}
    objects = (node("a"), tainted, launcher())
    assert Cluster(*objects, vmi()).ask(migration()).outcome == "refused"
    warned = Cluster(*objects, vmi(schedulerName="mine")).ask(migration())
    assert warned.outcome == "warned"
    assert any('another scheduler decides, "mine"' in text for text in warned.warnings)


def test_nodes_are_counted_and_not_named_where_the_settings_say_so() -> None:
    cluster = Cluster(*WORKED, vmi(), launcher(), configuration="messages: {nodeNames: false}")
    message = cluster.ask(migration()).message
    assert "1 node lacks" in message
    assert "b lacks" not in message


def test_a_refusal_stays_short_with_many_unlike_nodes_and_long_names() -> None:
    unlike = [node(f"{'n' * 60}-{n:03d}", f"M{n}", **{f"x{n}": "y"}) for n in range(300)]
    decision = Cluster(node("a"), *unlike, vmi(), launcher()).ask(migration())
    assert len(decision.message) <= 1000
    assert decision.decision_id in decision.message
    assert "123" in decision.message


def test_hostile_text_is_capped_and_escaped() -> None:
    asked = migration()
    asked["spec"]["addedNodeSelector"] = {"kubernetes.io/hostname": "x\n\x1b[31m" + "y" * 500}
    decision = Cluster(node("a"), node("b"), vmi(), launcher()).ask(asked)
    assert decision.outcome == "refused"
    assert decision.message.isprintable()
    assert len(decision.message) <= 1000


def test_a_vmi_without_memory_gets_no_deadline_and_one_warning_says_why() -> None:
    guest = vmi()
    guest["spec"]["domain"].pop("memory")
    forged = {"migration-guard.io/completion-deadline": "2099-01-01T00:00:00Z"}
    cluster = Cluster(node("a"), node("b"), guest, launcher())
    decision = cluster.ask(migration(**forged))
    assert notes_of(cluster.after)["migration-guard.io/completion-deadline"] == ""
    assert [text for text in decision.warnings if "no completion deadline" in text]

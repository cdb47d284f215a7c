"""Facts that do not bear a refusal, and what is remembered of refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.review.asking import NOW, Cluster, launcher, migration, new_id, node, vmi
from webhook.model.node_groups import NodeGroups
from webhook.review.admission import review_of_object
from webhook.review.deciding import mutate
from webhook.review.memory import RefusalMemory

WORKED = (node("a", "XYZ"), node("b", "ABC"), vmi(), launcher())
OVERRIDE = {"migration-guard.io/override": "tonight"}


def test_facts_that_are_too_old_allow_with_one_warning_that_says_so() -> None:
    cluster = Cluster(*WORKED)
    cluster.facts = replace(cluster.facts, stale=("nodes (no sign of life for 200 s)",))
    decision = cluster.ask(migration())
    assert (decision.outcome, decision.allowed) == ("blind", True)
    assert decision.warnings == (
        "not judged: facts are missing or too old: nodes (no sign of life for 200 s) "
        f"(decision {decision.decision_id})",
    )


def test_who_tries_again_while_the_guard_is_blind_gets_the_id_of_the_first_refusal() -> None:
    cluster = Cluster(*WORKED, configuration="whenBlind: deny")
    ids = []
    for silent in (200, 201):
        cluster.facts = replace(cluster.facts, stale=(f"nodes (no sign of life for {silent} s)",))
        decision = cluster.ask(migration())
        assert f"{silent} s" in decision.message
        assert decision.message.endswith(f"Decision {decision.decision_id}.")
        ids.append(decision.decision_id)
    other = cluster.ask(migration(), user="bob").decision_id

    assert ids[0] == ids[1] != other


def test_what_a_blind_refusal_undoes_is_no_change_that_is_kept() -> None:
    cluster = Cluster(*WORKED, configuration="whenBlind: deny")
    cluster.facts = replace(cluster.facts, stale=("nodes",))
    review = review_of_object(migration(), username="alice")

    first = mutate(review, cluster.facts, cluster.configuration, NOW, new_id)

    assert first.patch
    assert first.refusal_follows


def test_facts_that_are_too_old_do_not_tell_that_a_vmi_is_not_there() -> None:
    cluster = Cluster(*WORKED, configuration="whenBlind: deny")
    cluster.facts = replace(cluster.facts, stale=("virtualmachineinstances",))
    assert cluster.ask(migration("ghost")).outcome == "refused"


@pytest.mark.parametrize(
    ("configuration", "groups"),
    [("exempt: {users: [alice]}", ()), ("", ("system:masters",))],
)
def test_when_blind_deny_spares_exemptions_and_overrides(
    configuration: str, groups: tuple[str, ...]
) -> None:
    cluster = Cluster(vmi(), configuration=f"whenBlind: deny\n{configuration}")
    asked = migration(**OVERRIDE) if groups else migration()
    assert cluster.ask(asked, groups=groups).allowed


def test_a_node_that_lost_a_label_lately_makes_a_warning_and_later_a_refusal() -> None:
    cluster = Cluster(*WORKED)
    until = (NOW + timedelta(minutes=7)).timestamp()
    nodes = [
        replace(n, settling_until=until if n.name == "b" else None)
        for n in cluster.facts.nodes.by_name.values()
    ]
    cluster.facts = replace(cluster.facts, nodes=NodeGroups(nodes))
    assert cluster.ask(migration()).outcome == "warned"
    assert cluster.ask(migration(), now=NOW + timedelta(minutes=7)).outcome == "refused"


def test_a_source_that_lost_its_host_model_lately_makes_a_warning() -> None:
    cluster = Cluster(node("a", ""), node("b"), vmi(), launcher())
    until = (NOW + timedelta(minutes=7)).timestamp()
    nodes = [
        replace(n, settling_until=until if n.name == "a" else None)
        for n in cluster.facts.nodes.by_name.values()
    ]
    cluster.facts = replace(cluster.facts, nodes=NodeGroups(nodes))
    assert cluster.ask(migration()).outcome == "warned"


def test_the_oldest_refusal_is_forgotten_first() -> None:
    memory = RefusalMemory(most=2)
    ids = {name: new_id() for name in "abc"}
    for name, decision in ids.items():
        memory.keep(name, decision, NOW)
    assert memory.recall("a", NOW) == ""
    assert (memory.recall("b", NOW), memory.recall("c", NOW)) == (ids["b"], ids["c"])


def test_the_override_that_stands_against_a_refusal_says_what_was_left_out() -> None:
    asked = migration(**OVERRIDE)
    asked["spec"]["addedNodeSelector"] = {"cpu-vendor.node.kubevirt.io/AMD": "true"}
    cluster = Cluster(node("a"), node("b", vendor="AMD"), vmi(), launcher())
    decision = cluster.ask(asked, groups=("system:masters",))
    assert decision.outcome == "overridden"
    assert cluster.after["spec"] == asked["spec"]
    assert any("not added, because no node would be left" in w for w in decision.warnings)

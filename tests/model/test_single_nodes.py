"""Demands on single nodes: nodes share an answer only where each alone would give that one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.objects import facts
from tests.review.asking import launcher, node, vmi
from webhook.model.node_groups import MANY_VALUES, NodeGroups
from webhook.model.obstacle import Obstacle
from webhook.model.placement import assess, assess_one
from webhook.model.snapshot import Snapshot

NOW = 1_000.0
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
RACK = "example.org/rack"


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def answers(known: Snapshot) -> dict[str, tuple[Obstacle, ...]]:
    """Judge all nodes together, and hold each answer against the one that the node alone gives."""
    demanded = known.requirements(known.vmis["prod/web"])
    conditions = known.conditions(demanded, (), NOW)
    found = {n.name: o for n, o in assess(demanded, known.nodes, conditions).by_node()}
    for name, alone in known.nodes.by_name.items():
        assert found[name] == assess_one(demanded, alone, known.nodes, conditions), name
    return found


def missing(found: tuple[Obstacle, ...]) -> set[str]:
    return {label for obstacle in found for label in obstacle.missing}


def in_zone(name: str, zone: str) -> dict[str, Any]:
    made = node(name)
    made["metadata"]["labels"][ZONE] = zone
    return made


def test_a_term_that_names_a_host_says_in_each_zone_what_is_missing_there() -> None:
    term = {"matchExpressions": [expression(HOST, "In", "n1"), expression(ZONE, "In", "east")]}
    nodes = [in_zone(f"n{n}", "east" if n % 2 else "west") for n in range(4)]

    found = answers(facts(node("a"), *nodes, vmi(affinity=near(term)), launcher()))

    assert found["n1"] == ()
    assert missing(found["n3"]) == {f"{HOST}=n1"}
    assert missing(found["n2"]) == {f"{HOST}=n1", f"{ZONE}=east"}


def test_of_two_nodes_that_no_term_names_each_answers_for_its_own_size() -> None:
    nodes = [node(f"n{n}") for n in range(3)]
    for number, each in enumerate(nodes):
        size = {"cpu": "8", "memory": f"{4 + 4 * number}Gi"}
        each["status"] |= {"capacity": size, "allocatable": size}

    guest = vmi(affinity=near({"matchExpressions": [expression(HOST, "NotIn", "a")]}))
    found = answers(facts(node("a"), *nodes, guest, launcher()))

    assert [len(found[f"n{n}"]) for n in range(3)] == [1, 0, 0]


def test_a_node_whose_labels_may_still_come_does_not_answer_for_one_that_has_settled() -> None:
    known = facts(
        node("a"),
        *(node(f"n{n}") for n in range(3)),
        vmi(affinity=near({"matchExpressions": [expression(HOST, "In", "elsewhere")]})),
        launcher(),
    )
    until = {"n0": None, "n1": NOW - 1, "n2": NOW + 1}
    nodes = [replace(n, settling_until=until.get(n.name)) for n in known.nodes.by_name.values()]

    found = answers(replace(known, nodes=NodeGroups(nodes, {})))

    assert {name: found[name][0].kind for name in until} == {
        "n0": "lasting",
        "n1": "lasting",
        "n2": "passing",
    }


@pytest.mark.parametrize(
    ("operator", "value", "fitting"), [("Gt", "30", {"n31", "n32"}), ("Lt", "1", {"n0"})]
)
def test_a_number_is_compared_on_each_node(operator: str, value: str, fitting: set[str]) -> None:
    nodes = [node(f"n{n}") for n in range(MANY_VALUES + 1)]
    for number, each in enumerate(nodes):
        each["metadata"]["labels"][RACK] = str(number)

    guest = vmi(affinity=near({"matchExpressions": [expression(RACK, operator, value)]}))
    known = facts(node("a"), *nodes, guest, launcher())
    assert RACK in known.nodes.individual

    assert {name for name, found in answers(known).items() if not found} == fitting


def test_a_node_is_chosen_by_its_own_name() -> None:
    field = expression("metadata.name", "In", "n2")
    nodes = [node(f"n{n}") for n in range(4)]

    found = answers(
        facts(node("a"), *nodes, vmi(affinity=near({"matchFields": [field]})), launcher())
    )

    assert {name for name, obstacles in found.items() if not obstacles} == {"n2"}
    assert missing(found["n1"]) == {"metadata.name=n2"}

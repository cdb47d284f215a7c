"""Nodes whose labels may still come, as the time goes on: what is remembered never shows."""

from __future__ import annotations

import itertools

import pytest

from tests.cluster.objects import facts, node, vmi
from webhook.model.node_groups import NodeGroups
from webhook.model.placement import Conditions, assess, assess_one

MODEL = "cpu-model.node.kubevirt.io/Penryn"
TIMES = (999.0, 1000.0, 1500.0, 2000.0, 2500.0, None)


def known():
    """A source, four nodes without its model of which three settle, and one with it."""
    until = {"b": 1000.0, "c": 2000.0, "d": 2000.0, "e": None, "f": None, "a": 1500.0}
    found = facts(
        node("a", {MODEL: "true"}),
        *(node(name) for name in "bcde"),
        node("f", {MODEL: "true"}),
        vmi("vm", node_name="a", cpu={"model": "Penryn"}),
    )
    object_of = type(found.nodes.by_name["a"])
    nodes = [
        object_of(n.name, n.labels, settling_until=until[n.name])
        for n in found.nodes.by_name.values()
    ]
    return found, nodes


def answer(assessment):
    return {n.name: [(o.code, o.kind) for o in found] for n, found in assessment.by_node()}


@pytest.mark.parametrize("order", list(itertools.permutations(TIMES, 3)))
def test_the_answer_at_any_time_is_that_of_nodes_that_nobody_asked_before(order):
    found, nodes = known()
    demanded = found.requirements(found.vmis["default/vm"])
    remembering = NodeGroups(nodes)
    for now in order:
        under = Conditions(now=now)
        fresh = answer(assess(demanded, NodeGroups(nodes), under))
        assert answer(assess(demanded, remembering, under)) == fresh
        one_by_one = {
            n.name: [(o.code, o.kind) for o in assess_one(demanded, n, remembering, under)]
            for n in nodes
        }
        assert fresh == one_by_one


def test_what_was_found_out_about_settling_nodes_is_used_again():
    found, nodes = known()
    demanded = found.requirements(found.vmis["default/vm"])
    remembering = NodeGroups(nodes)
    for now in (990.0, 991.0, 992.0):
        assess(demanded, remembering, Conditions(now=now))
    assert len(remembering.memory) == 1
    assess(demanded, remembering, Conditions(now=1000.0))
    assert len(remembering.memory) == 2

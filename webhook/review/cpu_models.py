"""Rule unknown-cpu-model: can enough nodes run a named CPU model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.virtual_machine import HOST_MODEL, HOST_PASSTHROUGH
from webhook.model.wording import escaped, nodes_named
from webhook.policy.rules import Rule

if TYPE_CHECKING:
    from webhook.model.snapshot import Snapshot
    from webhook.review.case import Case

NO_NAME = ("", HOST_MODEL, HOST_PASSTHROUGH)
ENOUGH = 2


def nodes_with(snapshot: Snapshot, label: str) -> tuple[str, ...]:
    """Return the nodes that run KubeVirt and have a label at "true"."""
    return tuple(
        sorted(
            node.name
            for group in snapshot.nodes.groups
            if labels.SCHEDULABLE in group.representative.labels
            and group.representative.labels.get(label) == "true"
            for node in group.nodes
        )
    )


def tell_of_model(case: Case, model: str, whose: str) -> None:
    """Warn where a named model is usable on no node, or on one only."""
    rule = Rule.UNKNOWN_CPU_MODEL
    if model in NO_NAME or case.snapshot.blind():
        return
    able = nodes_with(case.snapshot, labels.CPU_MODEL + model)
    if len(able) >= ENOUGH:
        case.passed(rule)
        return
    name = f'CPU model "{escaped(model)}" of {escaped(whose, 160)}'
    if able:
        text = (
            f"{name} is usable on one node only, "
            f"{nodes_named(able, by_name=case.by_name)}: the VM cannot migrate."
        )
    else:
        text = f"{name} is usable on no node: the VM cannot start."
    hosts = nodes_with(case.snapshot, labels.HOST_MODEL_CPU + model)
    if hosts and not able:
        text = (
            f"{name} is usable on no node, although it is the host model of "
            f"{nodes_named(hosts, by_name=case.by_name)}: the VM cannot start."
        )
    case.find(rule, f"{text} `migration-guard baseline` lists the models to choose from.")

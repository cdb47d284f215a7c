"""The KubeVirt CR: rule cluster-cpu-model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields, labels
from webhook.model.advice import models_by_reach
from webhook.model.wording import escaped, nodes_named
from webhook.policy.rules import Mode, Rule
from webhook.review import requester
from webhook.review.cpu_models import NO_NAME, nodes_with

if TYPE_CHECKING:
    from webhook.review.case import Case

_AT = ("spec", "configuration", "cpuModel")


def validate_updated(case: Case) -> None:
    """Hold a new cluster-wide CPU model against the nodes."""
    rule = Rule.CLUSTER_CPU_MODEL
    model = fields.text(case.review.obj, *_AT)
    if model == fields.text(case.review.old, *_AT):
        return
    if model in NO_NAME:
        case.passed(rule)
        return
    if why := case.blind:
        case.conclude_blind(why)
        return
    able = set(nodes_with(case.snapshot, labels.CPU_MODEL + model))
    left_out = [
        node.name
        for group in case.snapshot.nodes.groups
        if labels.SCHEDULABLE in group.representative.labels
        and group.representative.labels.get(labels.ARCH) != "arm64"
        for node in group.nodes
        if node.name not in able
    ]
    if not left_out:
        case.passed(rule)
        return
    name = f'cpuModel "{escaped(model)}" of the KubeVirt CR'
    if able:
        nodes = nodes_named(sorted(left_out), by_name=case.by_name)
        case.find(
            rule, f"{name} leaves out {nodes}: new VMs cannot start there.", at_most=Mode.WARN
        )
        return
    # An operator that reconciles the CR would repeat a refused update for ever.
    operator = case.review.username.startswith(requester.SERVICE_ACCOUNT)
    case.find(
        rule,
        f"{name} refused: no schedulable node can run it, so that no new VM could start. "
        f"{_better(case)}Decision {case.decision_id}.",
        at_most=Mode.WARN if operator else Mode.ENFORCE,
    )


def _better(case: Case) -> str:
    reach = models_by_reach(case.snapshot)
    if not reach:
        return ""
    model, count = reach[0]
    return f'The model that most nodes can run is "{escaped(model)}" ({count} nodes). '

"""Who chose a CPU model, and rule unknown-cpu-model: can enough nodes run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.cpu import EffectiveModel, architecture, effective_model
from webhook.model.virtual_machine import HOST_MODEL, HOST_PASSTHROUGH
from webhook.model.wording import escaped, nodes_named
from webhook.policy.rules import Mode, Rule
from webhook.review.annotations import CPU_MODEL, CPU_MODEL_SOURCE

if TYPE_CHECKING:
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.review.case import Case

MODEL_SOURCES = ("vm", "instancetype", "preset", "cluster", "default", "architecture")
NO_NAME = ("", HOST_MODEL, HOST_PASSTHROUGH)
ENOUGH = 2


def model_source(vmi: VirtualMachineInstance, snapshot: Snapshot) -> EffectiveModel:
    """Return the effective CPU model and who chose it, one of :data:`MODEL_SOURCES`.

    KubeVirt writes its default into the VMI, which hides where it came from; what the guard noted
    there, and the VM, tell more.
    """
    effective = effective_model(vmi, snapshot.kubevirt)
    return effective._replace(source=_source(vmi, snapshot, effective))


def _source(vmi: VirtualMachineInstance, snapshot: Snapshot, effective: EffectiveModel) -> str:
    noted = vmi.annotations.get(CPU_MODEL_SOURCE, "")
    if vmi.annotations.get(CPU_MODEL) == effective.model and noted in MODEL_SOURCES:
        return noted
    vm = snapshot.vms.get(vmi.key)
    if effective.source != "vm" or vm is None or vm.cpu_model:
        return effective.source
    if effective.model == snapshot.kubevirt.cpu_model:
        return "cluster"
    if vm.instancetype:
        return "instancetype" if effective.model != HOST_MODEL else "default"
    if architecture(vmi, snapshot.kubevirt) == "arm64":
        return "architecture"
    return "default" if effective.model == HOST_MODEL else "vm"


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
    if model in NO_NAME or case.mode(rule) is Mode.OFF:
        return
    if why := case.blind:
        case.conclude_blind(why)
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

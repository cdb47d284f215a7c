"""What another CPU model for the cluster, or nodes that join it, would change for its VMs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.model import fields, labels
from webhook.model.blockers import blockers
from webhook.model.cpu import architecture
from webhook.model.fields import InvalidObject
from webhook.model.forecast import Verdict
from webhook.model.migration import Source
from webhook.model.virtual_machine import (
    HOST_MODEL,
    HOST_PASSTHROUGH,
    VirtualMachineInstance,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from webhook.model.fleet import Fleet
    from webhook.model.forecast import VmForecast
    from webhook.model.node import Node
    from webhook.model.snapshot import Snapshot

_WORST_FIRST = (Verdict.STUCK, Verdict.WAITING, Verdict.ONE_NODE, Verdict.MOVABLE)


def model_changes(
    fleet: Fleet, vms: tuple[VmForecast, ...], cpu_model: str
) -> Iterator[Mapping[str, object]]:
    """Yield what a CPU model for the cluster would change, once the VMs are restarted.

    Spoken of are the VMs whose definition names no model, so that the cluster's counts. Each is
    judged as a fresh start with the model; where that may end on several kinds of nodes, the worst
    of them counts. ``starts`` is False where no node could run the VM at all.
    """
    starts = _Starts(fleet)
    for before in vms:
        vmi = fleet.snapshot.vmis[before.vm]
        if before.cpu_model == cpu_model or not defaulted(vmi, fleet.snapshot):
            continue
        after, able = before.verdict, True
        if not any(found.code == "not-live-migratable" for found in blockers(vmi)):
            try:
                after, able = starts.verdict(vmi, cpu_model)
            except InvalidObject:
                # What is wrong with the VM stands in its own forecast.
                after = Verdict.BLOCKED
        yield {
            "vm": before.vm,
            "from": before.cpu_model,
            "to": cpu_model,
            "verdictBefore": before.verdict.value,
            "verdictAfter": after.value,
            "starts": able,
        }


def added_changes(
    fleet: Fleet, vms: tuple[VmForecast, ...], nodes: tuple[Node, ...]
) -> Iterator[Mapping[str, object]]:
    """Yield what nodes that join the cluster would change.

    First the VMs that gain a target; then each node: ``receivesFrom`` are the nodes whose
    host-model guests it can take, ``sendsTo`` those that can take its own, ``wouldStrand`` the
    host-model VMs that, if they were started there, could not leave it.
    """
    larger = fleet.with_nodes(nodes)
    names = frozenset(node.name for node in nodes)
    for before, after in zip(vms, larger.every_vm(lambda *_: ""), strict=True):
        gained = sorted(names.intersection(after.targets).difference(before.targets))
        if gained:
            yield {
                "vm": before.vm,
                "verdictBefore": before.verdict.value,
                "verdictAfter": after.verdict.value,
                "newTargets": gained,
            }
    starts = _Starts(larger)
    guests = [larger.snapshot.vmis[vm.vm] for vm in vms if vm.cpu_model == HOST_MODEL]
    for name in sorted(names):
        node = larger.snapshot.nodes.by_name[name]
        yield {
            "node": name,
            "receivesFrom": starts.sources_for(node),
            "sendsTo": starts.targets_from(node),
            "wouldStrand": [vmi.key for vmi in guests if starts.strands(vmi, node)],
        }


def defaulted(vmi: VirtualMachineInstance, snapshot: Snapshot) -> bool:
    """Tell whether a VM has its CPU model from the cluster.

    KubeVirt fills in the model of every VMI, so its VM tells; without one, a model that the
    cluster could have given counts as given.
    """
    if architecture(vmi, snapshot.kubevirt) == "arm64":
        return False
    vm = snapshot.vms.get(f"{vmi.namespace}/{vmi.owner or vmi.name}")
    given = ("", snapshot.kubevirt.cpu_model or HOST_MODEL)
    if vm is None:
        return vmi.cpu_model in (*given, HOST_MODEL)
    # An instancetype's model is not written in the VM.
    return not vm.cpu_model and (not vm.instancetype or vmi.cpu_model in given)


class _Starts:
    """Judges VMs as they would start anew; remembers the answers for equal ones."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._snapshot = fleet.snapshot
        self._verdicts: dict[Hashable, tuple[Verdict, bool]] = {}
        self._vendors: dict[Hashable, tuple[str, ...]] = {}

    def verdict(self, vmi: VirtualMachineInstance, model: str) -> tuple[Verdict, bool]:
        """Return the worst verdict over the nodes that could run a fresh start, and if any can."""
        fresh = _fresh(vmi, model)
        key, judged = self._fleet.judged(fresh, Source())
        known = self._verdicts.get(key)
        if known is None:
            known = self._worst(fresh, judged.prospects.every_possible())
            self._verdicts[key] = known
        return known

    def _worst(
        self, fresh: VirtualMachineInstance, possible: tuple[str, ...]
    ) -> tuple[Verdict, bool]:
        found: set[Verdict] = set()
        for several in self._kinds(possible, fresh.cpu_model).values():
            # Nodes of one kind answer alike but for the node itself, which is left out.
            node = several[0]
            _, judged = self._fleet.judged(fresh, Source(node.name, node))
            found.update(judged.prospects.verdict(n.name) for n in several)
        return next((v for v in _WORST_FIRST if v in found), Verdict.STUCK), bool(possible)

    def _kinds(self, names: tuple[str, ...], model: str) -> dict[Hashable, list[Node]]:
        by_cpu = model in (HOST_MODEL, HOST_PASSTHROUGH)
        found: dict[Hashable, list[Node]] = {}
        for name in names:
            node = self._snapshot.nodes.by_name[name]
            kind = self._fleet.kind(name)
            if kind not in self._vendors:
                self._vendors[kind] = tuple(labels.names(node.labels, labels.CPU_VENDOR))
            key = kind if by_cpu else self._vendors[kind]
            found.setdefault(key, []).append(node)
        return found

    def strands(self, vmi: VirtualMachineInstance, node: Node) -> bool:
        """Tell whether a host-model VM could start on a node and then not leave it."""
        fresh = _fresh(vmi, HOST_MODEL)
        try:
            _, start = self._fleet.judged(fresh, Source())
            if node.name not in start.prospects.every_possible():
                return False
            _, there = self._fleet.judged(fresh, Source(node.name, node))
        except InvalidObject:
            return False
        return there.prospects.verdict(node.name) is Verdict.STUCK

    def targets_from(self, node: Node) -> list[str]:
        """Return the nodes whose CPU can take the host-model guests of a node."""
        _, judged = self._fleet.judged(_plain(), Source(node.name, node))
        return [name for name in judged.prospects.every_possible() if name != node.name]

    def sources_for(self, node: Node) -> list[str]:
        """Return the nodes whose host-model guests a node can take."""
        every = tuple(sorted(self._snapshot.nodes.by_name))
        found: list[str] = []
        for several in self._kinds(every, HOST_MODEL).values():
            first = several[0]
            _, judged = self._fleet.judged(_plain(), Source(first.name, first))
            if node.name in judged.prospects.every_possible():
                found.extend(n.name for n in several if n.name != node.name)
        return sorted(found)


def _fresh(vmi: VirtualMachineInstance, model: str) -> VirtualMachineInstance:
    machine = fields.text(vmi.spec, "domain", "machine", "type")
    return replace(vmi, cpu_model=model, machine_type=machine, phase="", node_name="")


def _plain() -> VirtualMachineInstance:
    """Return a guest that demands nothing but its CPU."""
    domain = {"cpu": {"model": HOST_MODEL}}
    return VirtualMachineInstance.from_object({"spec": {"domain": domain}})

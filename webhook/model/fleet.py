"""Many virtual machines against many nodes: what could go where, before anything moves.

The answer for each VM is the one that asking VM by VM and node by node would give. VMs are grouped
by what makes their demands equal, and each group is judged once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.model import advice as advising
from webhook.model import labels
from webhook.model.blockers import blockers
from webhook.model.cpu import effective_model
from webhook.model.fields import InvalidObject, text
from webhook.model.forecast import Prospects, Verdict, VmForecast
from webhook.model.limits import TooLarge
from webhook.model.neighbours import Neighbours
from webhook.model.placement import Assessment, Conditions, assess
from webhook.model.rendering import requirements
from webhook.model.requests import derived_requests
from webhook.model.requirements import Requirements
from webhook.model.storage import not_judged, topologies
from webhook.model.virtual_machine import VirtualMachineInstance

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from webhook.model.migration import LauncherPod, Source
    from webhook.model.node import Node
    from webhook.model.pod_affinity import Domains
    from webhook.model.snapshot import Snapshot

Advise = Callable[[VirtualMachineInstance, Requirements, Assessment], str]

# The labels of a source node that demands are derived from.
_CPU_LABELS = (
    labels.HOST_MODEL_CPU,
    labels.HOST_MODEL_REQUIRED_FEATURES,
    labels.CPU_FEATURE,
    labels.CPU_VENDOR,
)


class Judged(NamedTuple):
    """What VMs with equal demands share: the demands without a source node, and the answer."""

    requirements: Requirements
    assessment: Assessment
    prospects: Prospects


class Fleet:
    """One forecast in the making: remembers what was found out for equal VMs."""

    def __init__(
        self,
        snapshot: Snapshot,
        passing_taints: Sequence[str],
        now: float | None = None,
        draining: frozenset[str] = frozenset(),
    ) -> None:
        """Take the facts, and the nodes that are no targets."""
        self.snapshot = snapshot
        self.passing_taints = tuple(passing_taints)
        self.now = now
        self.draining = draining & snapshot.nodes.by_name.keys()
        self._neighbours = Neighbours(
            snapshot.pods, snapshot.nodes.by_name, snapshot.namespaces, snapshot.repelling
        )
        self._requirements: dict[Hashable, Requirements] = {}
        self._judged: dict[Hashable, Judged] = {}
        self._advice: dict[Hashable, str] = {}
        by_name = snapshot.nodes.individual.any_of(_CPU_LABELS)
        self._kind: dict[str, Hashable] = {
            node.name: (node.name if by_name else group.kind, node.settling_until)
            for group in snapshot.nodes.groups
            for node in group.nodes
        }

    def with_nodes(self, more: tuple[Node, ...]) -> Fleet:
        """Return the same fleet with further nodes."""
        snapshot = replace(self.snapshot, nodes=self.snapshot.nodes.with_nodes(more))
        return Fleet(snapshot, self.passing_taints, self.now, self.draining)

    def kind(self, node_name: str) -> Hashable:
        """Return what nodes with the same CPU have in common."""
        return self._kind[node_name]

    def every_vm(self, advise: Advise) -> tuple[VmForecast, ...]:
        """Judge every VM that has not ended, by namespace and name."""
        vmis = self.snapshot.vmis
        return tuple(self.one(vmis[key], advise) for key in sorted(vmis) if not vmis[key].final)

    def one(self, vmi: VirtualMachineInstance, advise: Advise) -> VmForecast:
        """Judge one VM where it is."""
        model = effective_model(vmi, self.snapshot.kubevirt).model
        found = [blocker.message for blocker in blockers(vmi)]
        if not found:
            try:
                key, judged = self.judged(vmi, self.snapshot.source_of(vmi))
            except TooLarge as error:
                found = [f"it is not judged: {error}"]
            except InvalidObject as error:
                found = [f"its definition cannot be read: {error}"]
        if found:
            told = " ".join(f"{words[0].upper()}{words[1:].rstrip('.')}." for words in found)
            return VmForecast(vmi.key, vmi.node_name, model, Verdict.BLOCKED, advice=told)
        verdict = judged.prospects.verdict(vmi.node_name)
        told = ""
        if verdict is not Verdict.MOVABLE:
            told = self._advised(key, vmi, judged, advise)
        return VmForecast(vmi.key, vmi.node_name, model, verdict, judged.prospects, told)

    def judged(self, vmi: VirtualMachineInstance, source: Source) -> tuple[Hashable, Judged]:
        """Judge a VM as it would leave a source (or start, where the source is none).

        The source node itself is judged like any other: it is for the reader to leave it out, so
        that VMs with equal demands on different nodes share the answer.

        Raises:
            InvalidObject: A field of the VMI has a type that a VMI cannot have.
        """
        snapshot, pod = self.snapshot, source.pod
        reached = topologies(vmi, snapshot.claims, snapshot.volumes) if vmi.volumes else ()
        unjudged = not_judged(vmi, snapshot.claims, snapshot.volumes) if vmi.volumes else ()
        shape = (
            _shape(vmi),
            _pod_shape(pod),
            source.node_name and self._kind.get(source.node_name, "unknown"),
            reached,
            unjudged,
        )
        demanded = self._requirements.get(shape)
        if demanded is None:
            demanded = self._requirements[shape] = self._demanded(vmi, source)
        asked = pod.requests if pod and pod.requests else derived_requests(vmi, snapshot.kubevirt)
        near = self._neighbours.domains(demanded.pod_terms, vmi.namespace, vmi.labels)
        key = (shape, frozenset(asked.items()), near)
        judged = self._judged.get(key)
        if judged is None:
            exact = replace(demanded, requests=asked)
            under = self.conditions(near)
            assessment = assess(exact, snapshot.nodes, under)
            judged = Judged(exact, assessment, Prospects(assessment, self.draining))
            self._judged[key] = judged
        return key, judged

    def conditions(self, near: tuple[Domains, ...]) -> Conditions:
        """Return what else a judgement depends on."""
        return Conditions(
            passing_taints=(*self.passing_taints, self.snapshot.kubevirt.node_drain_taint),
            now=self.now,
            domains=near,
            all_pods=self.snapshot.all_pods,
        )

    def advice(
        self, vmi: VirtualMachineInstance, demanded: Requirements, assessment: Assessment
    ) -> str:
        """Say what would let a VM migrate."""
        near = self._neighbours.domains(demanded.pod_terms, vmi.namespace, vmi.labels)
        return advising.advice_for(vmi, self.snapshot, demanded, assessment, self.conditions(near))

    def _demanded(self, vmi: VirtualMachineInstance, source: Source) -> Requirements:
        snapshot = self.snapshot
        named = text(vmi.spec, "runtimeClassName") or snapshot.kubevirt.default_runtime_class
        found = requirements(
            vmi,
            source,
            None,
            snapshot.kubevirt,
            topologies=topologies(vmi, snapshot.claims, snapshot.volumes),
            runtime_class=snapshot.runtime_classes.get(named),
            not_judged=not_judged(vmi, snapshot.claims, snapshot.volumes),
        )
        return replace(found, source_node="")

    def _advised(
        self, key: Hashable, vmi: VirtualMachineInstance, judged: Judged, advise: Advise
    ) -> str:
        """Ask for advice once for equal VMs, unless what was said names the VM's own node."""
        vm = self.snapshot.vms.get(f"{vmi.namespace}/{vmi.owner or vmi.name}")
        machine = text(vmi.spec, "domain", "machine", "type")
        said_by = (key, machine, vm and (vm.cpu_model, vm.instancetype))
        known = self._advice.get(said_by)
        if known is not None and vmi.node_name not in known:
            return known
        exact = replace(judged.requirements, source_node=vmi.node_name)
        near = self._neighbours.domains(exact.pod_terms, vmi.namespace, vmi.labels)
        own = assess(exact, self.snapshot.nodes, self.conditions(near))
        told = advise(vmi, exact, own)
        self._advice.setdefault(said_by, told)
        return told


def _shape(vmi: VirtualMachineInstance) -> Hashable:
    """Return all of a VMI that its demands are made of, its size, place and disks left aside."""
    spec = vmi.spec
    return (
        vmi.architecture,
        vmi.cpu_model,
        vmi.cpu_features,
        vmi.dedicated_cpus,
        vmi.hyperv,
        vmi.evmcs,
        vmi.machine_type,
        vmi.tsc_frequency,
        vmi.launch_security,
        frozenset(vmi.node_selector.items()),
        (repr(vmi.affinity), vmi.namespace) if vmi.affinity else "",
        vmi.scheduler,
        spec.get("runtimeClassName"),
        repr(spec.get("tolerations")),
        bool(spec.get("topologySpreadConstraints")),
        bool(spec.get("resourceClaims")),
    )


def _pod_shape(pod: LauncherPod | None) -> Hashable:
    if pod is None:
        return None
    return (
        pod.migrated_here,
        frozenset(pod.node_selector.items()),
        pod.tolerations,
        pod.scheduler,
        pod.resource_claims,
    )

"""All facts that a decision may rest on, at one moment; immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.model import fields, labels, limits
from webhook.model.kubevirt import KubeVirt
from webhook.model.memory import Memory, storable
from webhook.model.migration import RuntimeClass, Source
from webhook.model.neighbours import Neighbours
from webhook.model.node_groups import NodeGroups
from webhook.model.placement import Conditions
from webhook.model.pod_affinity import PodTerm, read_pod_terms
from webhook.model.rendering import requirements
from webhook.model.storage import not_judged, topologies
from webhook.model.unreadable import told

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from webhook.model.migration import LauncherPod, Migration, MigrationPolicy
    from webhook.model.node_affinity import LabelSelector
    from webhook.model.requirements import Requirements
    from webhook.model.storage import Claim, PersistentVolume
    from webhook.model.unreadable import Unreadable
    from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance


@dataclass(frozen=True, slots=True)
class Preset:
    """A VirtualMachineInstancePreset that sets a CPU; an empty selector matches every VMI.

    Source: KubeVirt ``pkg/virt-api/webhooks/mutating-webhook/mutators/preset.go``.
    """

    namespace: str
    name: str
    selector: LabelSelector


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The facts.

    Attributes:
        vmis, vms: By ``namespace/name``.
        migrations: By uid and by ``namespace/name``, those that are not finished.
        pods: By the uid of the VMI, the virt-launcher pods that are not finished.
        claims: By ``namespace/name``.
        namespaces: The labels of each namespace.
        upgrading: A Harvester upgrade runs.
        all_pods: ``pods`` and the room they take hold every pod, not only virtual machines.
        stale: Kinds whose facts are too old or were never filled; empty for files.
        unreadable: What is there and cannot be read, by the attribute of
            :class:`webhook.cluster.facts.Facts` that would hold it.
        memory: What was found out about these facts already; it changes the time that an answer
            takes and never the answer.
    """

    nodes: NodeGroups
    kubevirt: KubeVirt = field(default_factory=KubeVirt)
    vmis: Mapping[str, VirtualMachineInstance] = field(default_factory=dict)
    vms: Mapping[str, VirtualMachine] = field(default_factory=dict)
    migrations: Mapping[str, Migration] = field(default_factory=dict)
    pods: Mapping[str, tuple[LauncherPod, ...]] = field(default_factory=dict)
    policies: tuple[MigrationPolicy, ...] = ()
    presets: tuple[Preset, ...] = ()
    runtime_classes: Mapping[str, RuntimeClass] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    volumes: Mapping[str, PersistentVolume] = field(default_factory=dict)
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    upgrading: bool = False
    all_pods: bool = False
    stale: tuple[str, ...] = ()
    unreadable: Mapping[str, tuple[Unreadable, ...]] = field(default_factory=dict)
    repelling: tuple[tuple[LauncherPod, PodTerm], ...] = ()
    neighbours: Neighbours = field(init=False, repr=False, compare=False)
    memory: Memory = field(init=False, repr=False, compare=False, default_factory=Memory)

    def __post_init__(self) -> None:
        """Put the pods where they can be asked about; nothing is looked at yet."""
        around = Neighbours(self.pods, self.nodes.by_name, self.namespaces, self.repelling)
        object.__setattr__(self, "neighbours", around)

    @property
    def migrations_under_way(self) -> tuple[Migration, ...]:
        """Every migration that is not finished, once."""
        return tuple({migration.key: migration for migration in self.migrations.values()}.values())

    def blind(self, *, by_name: bool = True) -> str:
        """Say why the facts do not bear a decision that rests on all nodes, "" where they do.

        A node that is there and cannot be read might be the one that a VM can go to.

        Args:
            by_name: Whether nodes are named.
        """
        if self.stale:
            return self._too_old()
        unsure = self.unsure_of("kubevirts", "nodes", by_name=by_name)
        return unsure or self.without_nodes()

    def unsure_of(self, *kinds: str, by_name: bool = True) -> str:
        """Say why nothing can be said that rests on certain kinds, "" where it can.

        They are too old, were never filled, or a KubeVirt CR or a node cannot be read.

        Args:
            kinds: Their plural names, as in ``stale``.
            by_name: Whether nodes are named.
        """
        if set(kinds) & set(self.stale):
            return self._too_old()
        unsure = ""
        if "kubevirts" in kinds:
            unsure = told("KubeVirt", self.unreadable.get("kubevirts", ()))
        if "nodes" in kinds and not unsure:
            unsure = told("node", self.unreadable.get("nodes", ()), by_name=by_name)
        return unsure

    def _too_old(self) -> str:
        return "facts are missing or too old: " + ", ".join(self.stale)

    def blind_to(self, vmi: VirtualMachineInstance) -> str:
        """Say why nothing can be said of where this VMI can go, "" where it can.

        Beside :meth:`blind`: its pod says what an earlier migration left to it, and with its
        RuntimeClass come tolerations.

        Raises:
            InvalidObject: The name of its RuntimeClass is no text.
        """
        named = self._runtime_class_of(vmi)
        classes = [c for c in self.unreadable.get("runtime_classes", ()) if c.key == named]
        pods = [
            pod
            for pod in self.unreadable.get("pods", ())
            if pod.vmi_uid == vmi.uid or (not pod.vmi_uid and pod.namespace == vmi.namespace)
        ]
        return told("pod", pods) or told("RuntimeClass", classes)

    def unsure_of_vmi(self, key: str) -> str:
        """Say that a VMI is there and cannot be read, "" where it can, or is not there.

        Args:
            key: ``namespace/name``.
        """
        return told("VMI", [one for one in self.unreadable.get("vmis", ()) if one.key == key])

    def without_nodes(self) -> str:
        """Say that no node is known that a VM could run on, "" where there is one."""
        if not self.nodes.by_name:
            return "no node is among the facts"
        if not any(labels.SCHEDULABLE in g.representative.labels for g in self.nodes.groups):
            return "no node with KubeVirt's labels is among the facts"
        return ""

    def launcher_pod(self, namespace: str, name: str) -> LauncherPod | None:
        """Return a virt-launcher pod that is not finished, None where there is none such."""
        pods = (pod for several in self.pods.values() for pod in several)
        found = (pod for pod in pods if pod.name == name and pod.namespace == namespace)
        return next(found, None)

    def vmi_of(self, pod: LauncherPod) -> VirtualMachineInstance | None:
        """Return the VMI whose name a launcher pod bears, None where it is not among the facts."""
        return self.vmis.get(f"{pod.namespace}/{pod.vmi_name}")

    def source_of(self, vmi: VirtualMachineInstance) -> Source:
        """Return where a VMI runs: its node, and its newest pod there."""
        if not vmi.running:
            return Source()
        own = [
            p
            for p in self.pods.get(vmi.uid, ())
            if p.node_name == vmi.node_name and p.namespace == vmi.namespace
        ]
        newest = max(own, key=lambda pod: (pod.created, pod.name), default=None)
        node = self.nodes.by_name.get(vmi.node_name)
        cpu = self.nodes.cpu_of(node) if node is not None else None
        return Source(vmi.node_name, node, newest, cpu)

    def requirements(
        self,
        vmi: VirtualMachineInstance,
        migration: Migration | None = None,
        *,
        strict_passthrough: bool = False,
    ) -> Requirements:
        """Say what the target pod of a migration of this VMI will demand.

        Raises:
            InvalidObject: A field of the VMI has a type that a VMI cannot have.
        """
        asked = migration.added_node_selector if migration else fields.EMPTY
        return self.memory.recall(
            self.memory_key(vmi, asked, strict_passthrough),
            lambda: self._requirements(vmi, migration, strict_passthrough=strict_passthrough),
        )

    def memory_key(
        self, vmi: VirtualMachineInstance, asked: Mapping[str, str], *more: Hashable
    ) -> Hashable | None:
        """Return under what to remember something about a migration of a VMI.

        None where nothing is to be remembered: the VMI is not the one among these facts, or more
        is asked of its target than can be kept.

        Args:
            vmi: What is to move.
            asked: The migration's ``addedNodeSelector``, all that is read of a migration.
            more: What else it depends on.
        """
        if self.vmis.get(vmi.key) is not vmi or not storable(asked):
            return None
        return (vmi.key, tuple(asked.items()), *more)

    def _requirements(
        self,
        vmi: VirtualMachineInstance,
        migration: Migration | None,
        *,
        strict_passthrough: bool,
    ) -> Requirements:
        return requirements(
            vmi,
            self.source_of(vmi),
            migration,
            self.kubevirt,
            topologies=topologies(vmi, self.claims, self.volumes),
            runtime_class=self.runtime_classes.get(self._runtime_class_of(vmi)),
            not_judged=not_judged(vmi, self.claims, self.volumes),
            strict_passthrough=strict_passthrough,
        )

    def _runtime_class_of(self, vmi: VirtualMachineInstance) -> str:
        return fields.text(vmi.spec, "runtimeClassName") or self.kubevirt.default_runtime_class

    def conditions(
        self, demanded: Requirements, passing_taints: Sequence[str], now: float | None
    ) -> Conditions:
        """Return what else judging a VM depends on: the time, taints, other pods."""
        drain = self.kubevirt.node_drain_taint
        return Conditions(
            passing_taints=(*passing_taints, drain),
            now=now,
            domains=self.neighbours.domains(
                demanded.pod_terms, demanded.namespace, demanded.vmi_labels
            ),
            all_pods=self.all_pods,
        )


def repelling_terms(
    pods: Mapping[str, tuple[LauncherPod, ...]],
) -> tuple[tuple[LauncherPod, PodTerm], ...]:
    """Return the terms of pods that run, as they keep others from their nodes."""
    return tuple(found for several in pods.values() for pod in several for found in repelling(pod))


def repelling(pod: LauncherPod) -> tuple[tuple[LauncherPod, PodTerm], ...]:
    """Return the required anti-affinity of a pod, each term beside the pod.

    KubeVirt's own term, by which a VM's pods keep away from each other, speaks of no other VM.
    """
    found = []
    terms = read_pod_terms(pod.affinity, pod.namespace)
    try:
        limits.hold_pod_terms("spec.affinity", terms)
    except limits.TooLarge:
        # What one VM's owner writes must not make the answers about all others slow.
        return ()
    for term in terms:
        own = term.selector is not None and labels.CREATED_BY in term.selector.keys
        if term.anti and not own:
            found.append((pod, term))
    return tuple(found)

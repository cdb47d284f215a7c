"""What a virtual machine demands of a node, each demand with where it comes from.

This is the value that everything else judges with; :mod:`webhook.model.rendering` builds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.obstacle import Code, Obstacle, Origin

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from webhook.model.node_affinity import Term
    from webhook.model.node_groups import IndividualKeys
    from webhook.model.pod_affinity import PodTerm
    from webhook.model.tolerations import Toleration

_CODE_BY_PREFIX = {
    labels.CPU_MODEL: Code.CPU_MODEL,
    labels.CPU_MODEL_MIGRATION: Code.CPU_MODEL,
    labels.HOST_MODEL_CPU: Code.CPU_MODEL,
    labels.CPU_FEATURE: Code.CPU_FEATURE,
    labels.CPU_VENDOR: Code.CPU_VENDOR,
    labels.MACHINE_TYPE: Code.MACHINE_TYPE,
    labels.HYPERV: Code.HYPERV,
    labels.HARVESTER_NETWORK: Code.NETWORK,
}
_CODE_BY_KEY = {
    labels.ARCH: Code.ARCHITECTURE,
    labels.SCHEDULABLE: Code.NO_KUBEVIRT,
    labels.CPU_MANAGER: Code.CPU_MANAGER,
    labels.CPU_MANAGER_LEGACY: Code.CPU_MANAGER,
    labels.REALTIME: Code.REALTIME,
    labels.SEV: Code.SEV,
    labels.SEV_ES: Code.SEV,
    labels.SEV_SNP: Code.SEV,
    labels.SECURE_EXECUTION: Code.SEV,
    labels.TDX: Code.TDX,
}


# Nodes have the same few hundred labels, and VMs demand them again and again.
_REMEMBERED = 4096


@lru_cache(_REMEMBERED)
def code_of(key: str, otherwise: Code = Code.NODE_SELECTOR) -> Code:
    """Return the obstacle code of a node that lacks a label."""
    known = _CODE_BY_KEY.get(key) or _CODE_BY_PREFIX.get(key[: key.find("/") + 1])
    if known is not None:
        return known
    return Code.TSC_FREQUENCY if key.startswith(labels.TSC_FREQUENCY) else otherwise


@dataclass(frozen=True, slots=True)
class Selector:
    """One entry of the target pod's node selector.

    Attributes:
        by_guard: KubeVirt does not set it; the guard adds it.
        certain: False where, during a rollout, only one of the two KubeVirt versions demands it.
    """

    key: str
    value: str
    origin: Origin
    code: Code
    by_guard: bool = False
    certain: bool = True


@lru_cache(_REMEMBERED)
def selector(key: str, value: str, origin: Origin, *, certain: bool = True) -> Selector:
    """Return an entry of a node selector that the key's own obstacle code stands for."""
    return Selector(key, value, origin, code_of(key), certain=certain)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The node needs one of several labels at "true"."""

    keys: tuple[str, ...]
    origin: Origin
    code: Code


@dataclass(frozen=True, slots=True)
class Absent:
    """The node must not have a label at all."""

    key: str
    origin: Origin
    code: Code


@dataclass(frozen=True, slots=True)
class Topology:
    """A volume can only be reached from nodes that match one of the terms."""

    volume: str
    terms: tuple[Term, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Overridden:
    """An entry of ``addedNodeSelector`` that loses against KubeVirt's own rendering."""

    key: str
    asked: str
    wins: str


@dataclass(frozen=True, slots=True)
class Requirements:
    """All that the target pod of a migration (or the pod of a start) demands of a node.

    Attributes:
        cpu_model: The effective CPU model.
        selectors: The node selector, by key: KubeVirt's and what the guard adds.
        any_of: Of each, one label is needed.
        absent: Labels that must not be there.
        affinity: Required node affinity: one of the terms must match; None where there is none.
        topologies: Where the volumes can be reached from.
        pod_terms: Required affinity and anti-affinity to other pods.
        tolerations: Taints that do not matter.
        requests: Resources in thousandths of their base unit.
        source_node: The node that the VM must leave, "" at a start.
        passthrough: Labels of the source's CPU that a host-passthrough guest may miss elsewhere.
        everywhere: Obstacles that hold on every node.
        overridden: Added selectors that lose.
        notes: What the person who asks should know, in words.
        not_judged: Demands that nobody can judge from here.
        foreign_scheduler: Another scheduler decides; only labels, affinity and CPU are certain.
        node_state: Whether cordons, taints and readiness count.
    """

    cpu_model: str = ""
    selectors: Mapping[str, Selector] = field(default_factory=dict)
    any_of: tuple[AnyOf, ...] = ()
    absent: tuple[Absent, ...] = ()
    affinity: tuple[Term, ...] | None = None
    topologies: tuple[Topology, ...] = ()
    pod_terms: tuple[PodTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    source_node: str = ""
    source_settling_until: float | None = None
    passthrough: frozenset[str] = frozenset()
    everywhere: tuple[Obstacle, ...] = ()
    overridden: tuple[Overridden, ...] = ()
    notes: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    foreign_scheduler: str = ""
    rolling_out: bool = False
    node_state: bool = True
    namespace: str = ""
    vmi_labels: Mapping[str, str] = field(default_factory=dict)
    _wanted: frozenset[tuple[str, str]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def wanted(self) -> frozenset[tuple[str, str]]:
        """The node selector as a set: most nodes are judged by one set difference."""
        known = self._wanted
        if known is None:
            known = frozenset((s.key, s.value) for s in self.selectors.values())
            object.__setattr__(self, "_wanted", known)
        return known

    @property
    def additions(self) -> dict[str, str]:
        """The node selector entries that KubeVirt does not set and the guard adds."""
        return {s.key: s.value for s in self.selectors.values() if s.by_guard}

    @property
    def chosen_host(self) -> str:
        """The host name that the migration or the VM names, "" where none is named."""
        named = self.selectors.get(labels.HOSTNAME)
        return named.value if named else ""

    def without_additions(self) -> Requirements:
        """Return the demands without what only the guard adds."""
        return replace(
            self,
            selectors={k: s for k, s in self.selectors.items() if not s.by_guard},
            topologies=tuple(t for t in self.topologies if t.origin is not Origin.GUARD),
        )

    def split(self, individual: IndividualKeys) -> tuple[Requirements, Requirements]:
        """Part the demands in two: those that equal nodes answer alike, and the rest.

        Args:
            individual: Label keys whose values tell single nodes apart, such as the host name.
        """
        apart = individual.among(self.selectors)
        own_selectors = {key: self.selectors[key] for key in apart}
        own_affinity = self.affinity is not None and _touch(self.affinity, individual)
        own_topologies = tuple(t for t in self.topologies if _touch(t.terms, individual))
        shared = replace(
            self,
            selectors={k: s for k, s in self.selectors.items() if k not in own_selectors}
            if apart
            else self.selectors,
            affinity=None if own_affinity else self.affinity,
            topologies=tuple(t for t in self.topologies if t not in own_topologies),
            pod_terms=(),
            requests={},
            source_node="",
        )
        own = Requirements(
            requests=self.requests,
            rolling_out=self.rolling_out,
            foreign_scheduler=self.foreign_scheduler,
            selectors=own_selectors,
            affinity=self.affinity if own_affinity else None,
            topologies=own_topologies,
            pod_terms=self.pod_terms,
            source_node=self.source_node,
            namespace=self.namespace,
            vmi_labels=self.vmi_labels,
            node_state=False,
        )
        return shared, own

    def split_off_kubevirt(self) -> tuple[Requirements, Requirements]:
        """Part the demands in two: those on the labels that KubeVirt writes, and the rest."""
        theirs = {
            key: selector
            for key, selector in self.selectors.items()
            if key == labels.SCHEDULABLE or labels.written_by_kubevirt(key)
        }
        of_kubevirt = replace(
            self,
            selectors=theirs,
            affinity=None,
            topologies=(),
            tolerations=(),
            requests={},
            source_node="",
            node_state=False,
        )
        rest = replace(
            self,
            selectors={k: s for k, s in self.selectors.items() if k not in theirs},
            any_of=(),
            absent=(),
            passthrough=frozenset(),
            everywhere=(),
        )
        return of_kubevirt, rest


def _touch(terms: tuple[Term, ...], individual: Container[str]) -> bool:
    return any(key in individual for term in terms for key in term.keys)

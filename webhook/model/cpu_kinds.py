"""Nodes, by the CPU that KubeVirt's labels tell of.

Sources: KubeVirt ``pkg/virt-handler/node-labeller`` (the labels),
``pkg/virt-controller/watch/migration/migration.go`` (what a host-model guest needs elsewhere).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.model import cpu_generations, labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.model.node import Node

_CPU_LABELS = (
    labels.CPU_FEATURE,
    labels.CPU_MODEL,
    labels.CPU_MODEL_MIGRATION,
    labels.CPU_VENDOR,
    labels.HOST_MODEL_CPU,
    labels.HOST_MODEL_REQUIRED_FEATURES,
)


@dataclass(slots=True)
class CpuKind:
    """Nodes whose CPU labels are equal.

    Attributes:
        marks: The CPU labels they have.
        features, models: What their CPUs can do; ``takes``: the host models whose guests they take.
        host_model: "" where they have no such label; ``required``: the features that their
            host-model guests need elsewhere.
        obsolete: KubeVirt keeps host-model guests away.
        names: The nodes.
        cores, memory: What they have together, in thousandths of a CPU and of a byte.
    """

    marks: frozenset[str]
    features: frozenset[str]
    models: frozenset[str]
    takes: frozenset[str]
    vendors: frozenset[str]
    host_model: str
    required: frozenset[str]
    obsolete: bool
    names: list[str] = field(default_factory=list)
    cores: int = 0
    memory: int = 0

    @property
    def vendor(self) -> str:
        """The vendor; of several labels (stale ones are never removed) that of the host model."""
        own = cpu_generations.vendor(self.host_model)
        if own in self.vendors and own is not None:
            return own
        return min(self.vendors, default="")

    def can_take_from(self, source: CpuKind) -> bool:
        """Tell whether these nodes can take the host-model guests of other nodes."""
        return (
            not self.obsolete
            and source.host_model in self.takes
            and source.required <= self.features
            and (not source.vendors or not source.vendors.isdisjoint(self.vendors))
        )


def cpu_kinds(nodes: Iterable[Node]) -> list[CpuKind]:
    """Part nodes by their CPU labels.

    Nodes without the label ``kubevirt.io/schedulable`` do not run KubeVirt and are left out.
    """
    kinds: dict[frozenset[str], CpuKind] = {}
    for node in nodes:
        if labels.SCHEDULABLE not in node.labels:
            continue
        marks = [
            key
            for key, value in node.labels.items()
            if value == "true" and key.startswith(_CPU_LABELS)
        ]
        if labels.OBSOLETE_HOST_MODEL in node.labels:
            marks.append(labels.OBSOLETE_HOST_MODEL)
        key = frozenset(marks)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = _kind(key)
        kind.names.append(node.name)
        size = node.capacity or node.allocatable
        kind.cores += size.get("cpu", 0)
        kind.memory += size.get("memory", 0)
    return sorted(kinds.values(), key=lambda kind: min(kind.names))


def _kind(marks: frozenset[str]) -> CpuKind:
    def names(prefix: str) -> frozenset[str]:
        return frozenset(mark[len(prefix) :] for mark in marks if mark.startswith(prefix))

    return CpuKind(
        marks=marks,
        features=names(labels.CPU_FEATURE),
        models=names(labels.CPU_MODEL),
        takes=names(labels.CPU_MODEL_MIGRATION),
        vendors=names(labels.CPU_VENDOR),
        host_model=min(names(labels.HOST_MODEL_CPU), default=""),
        required=names(labels.HOST_MODEL_REQUIRED_FEATURES),
        obsolete=labels.OBSOLETE_HOST_MODEL in marks,
    )

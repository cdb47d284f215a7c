"""Nodes, grouped by what makes them equal.

A cluster of thousands of nodes has a few dozen kinds of them. What equal nodes answer alike is
asked once a group; only what tells single nodes apart (host name, TSC frequency, sizes, free room)
is asked node by node, and only when a demand speaks of it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from webhook.model import fields, labels
from webhook.model.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A label key with more different values than this is taken to tell single nodes apart (racks, host
# names of storage drivers): nodes are not grouped by it.
MANY_VALUES = 32
_ALWAYS_INDIVIDUAL = (labels.TSC_FREQUENCY, labels.CPU_TIMER)


def of_kubevirt(key: str) -> bool:
    """Tell whether a label is KubeVirt's own: these come in as many kinds as there are CPUs."""
    return key == labels.SCHEDULABLE or labels.written_by_kubevirt(key)


class IndividualKeys:
    """The label keys that nodes are not grouped by."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys found to have many values; host names and frequencies always count."""
        self._keys = frozenset(keys) | {labels.HOSTNAME, "metadata.name"}

    def __contains__(self, key: object) -> bool:
        """Tell whether a key tells single nodes apart."""
        return key in self._keys or (isinstance(key, str) and key.startswith(_ALWAYS_INDIVIDUAL))

    def any_of(self, prefixes: tuple[str, ...]) -> bool:
        """Tell whether a key that begins with one of these was found to have many values."""
        return any(key.startswith(prefixes) for key in self._keys)

    def of(self, node_labels: Mapping[str, str]) -> dict[str, str]:
        """Return those labels of a node that nodes are grouped by."""
        keys = self._keys
        return {
            key: value
            for key, value in node_labels.items()
            if key not in keys and not key.startswith(_ALWAYS_INDIVIDUAL)
        }


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Nodes that no shared demand can tell apart.

    Attributes:
        representative: One of them, with the shared labels only.
        nodes: All of them, by name.
        position: Where each stands in ``nodes``.
        least_allocatable: Of each resource the smallest allocatable amount among them; nodes that
            report nothing do not count.
        by_free: Of each resource what is left of it on each node, as pairs of amount and position,
            the smallest amount first.
        settling: Whether labels of these nodes may still come.
        kind: Which of :attr:`NodeGroups.kinds` these nodes are of.
    """

    representative: Node
    nodes: tuple[Node, ...]
    position: Mapping[str, int]
    least_allocatable: Mapping[str, int]
    by_free: Mapping[str, tuple[tuple[int, int], ...]]
    settling: bool
    kind: int

    def short_of(self, requests: Mapping[str, int]) -> dict[int, list[str]]:
        """Return the resources that are used up, by the position of the node.

        Resources that a node does not report are left out.
        """
        short: dict[int, list[str]] = {}
        for name in sorted(requests):
            ordered = self.by_free.get(name, ())
            for _, position in ordered[: bisect_left(ordered, (requests[name], -1))]:
                short.setdefault(position, []).append(name)
        return short


class NodeGroups:
    """All nodes of a cluster and what is free on them; immutable.

    Attributes:
        by_name: All nodes.
        groups: The same, grouped; the order does not depend on the order of the nodes.
        individual: The label keys that the groups leave out.
        kinds: Groups differ in zones and the like; of these, each stands for all groups that have
            the same labels of KubeVirt, and has only those.
        memory: What :mod:`webhook.model.placement` has found out already about these nodes; it
            changes the time that an answer takes and never the answer.
    """

    __slots__ = ("_used", "by_name", "groups", "individual", "kinds", "memory")

    def __init__(
        self, nodes: Iterable[Node], used: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        """Group nodes.

        Args:
            nodes: All nodes; of several with one name the last counts.
            used: By node name, what the known pods ask for there, in thousandths of the base unit.
        """
        self.by_name: Mapping[str, Node] = {node.name: node for node in nodes}
        self._used = used or {}
        ordered = [self.by_name[name] for name in sorted(self.by_name)]
        self.individual = IndividualKeys(_keys_with_many_values(ordered))
        members: dict[object, list[Node]] = {}
        shared_labels: dict[object, Mapping[str, str]] = {}
        for node in ordered:
            shared = self.individual.of(node.labels)
            key = (
                frozenset(shared.items()),
                node.taints,
                node.cordoned,
                node.ready,
                node.settling_until is not None,
                _size(node),
            )
            members.setdefault(key, []).append(node)
            shared_labels.setdefault(key, shared)
        kinds: dict[frozenset[tuple[str, str]], int] = {}
        self.groups: tuple[NodeGroup, ...] = tuple(
            self._group(nodes, shared_labels[key], kinds) for key, nodes in members.items()
        )
        self.kinds: tuple[Node, ...] = tuple(Node("", dict(of_kind)) for of_kind in kinds)
        self.memory: dict[object, object] = {}

    def _group(
        self,
        nodes: list[Node],
        shared: Mapping[str, str],
        kinds: dict[frozenset[tuple[str, str]], int],
    ) -> NodeGroup:
        of_kind = frozenset(
            pair for pair in shared.items() if of_kubevirt(pair[0])
        )
        by_free: dict[str, list[tuple[int, int]]] = {}
        for position, node in enumerate(nodes):
            for name, amount in self.free(node).items():
                by_free.setdefault(name, []).append((amount, position))
        return NodeGroup(
            representative=replace(
                nodes[0], labels=shared, capacity=fields.EMPTY, allocatable=fields.EMPTY
            ),
            nodes=tuple(nodes),
            position={node.name: position for position, node in enumerate(nodes)},
            least_allocatable=_least(node.allocatable for node in nodes),
            by_free={name: tuple(sorted(amounts)) for name, amounts in by_free.items()},
            settling=nodes[0].settling_until is not None,
            kind=kinds.setdefault(of_kind, len(kinds)),
        )

    def free(self, node: Node) -> Mapping[str, int]:
        """Return what is left of a node's allocatable resources, as far as pods are known."""
        used = self._used.get(node.name)
        if not used:
            return node.allocatable
        return {name: amount - used.get(name, 0) for name, amount in node.allocatable.items()}

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.by_name)


def _keys_with_many_values(nodes: list[Node]) -> list[str]:
    if len(nodes) <= MANY_VALUES:
        return []
    values: dict[str, set[str]] = {}
    many: set[str] = set()
    for node in nodes:
        for key, value in node.labels.items():
            if value == "true" or key in many:
                continue
            seen = values.setdefault(key, set())
            seen.add(value)
            if len(seen) > MANY_VALUES:
                many.add(key)
                del values[key]
    return sorted(many)


def _size(node: Node) -> object:
    """Return a node's size roughly: equal machines report memory that differs by some pages."""
    capacity = node.capacity
    return capacity.get("cpu"), capacity.get("memory", 0).bit_length(), frozenset(capacity)


def _least(amounts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the smallest amount of each resource; one that some node lacks counts as nothing."""
    least: dict[str, int] | None = None
    for amount in amounts:
        if not amount:
            continue
        if least is None:
            least = dict(amount)
            continue
        for name in list(least):
            least[name] = min(least[name], amount.get(name, 0))
    return least or {}

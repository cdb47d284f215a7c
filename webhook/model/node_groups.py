"""Nodes, grouped by what makes them equal.

A cluster of thousands of nodes has a few dozen kinds of them. What equal nodes answer alike is
asked once a group; only what tells single nodes apart (host name, TSC frequency, sizes, free room)
is asked node by node, and only when a demand speaks of it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from webhook.model import fields, labels
from webhook.model.cpu import CPU_LABELS, host_cpu
from webhook.model.memory import Memory
from webhook.model.node import Node
from webhook.model.rooms import Free, Rooms, room, too_small

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from webhook.model.cpu import HostCpu

# A label key with more different values than this is taken to tell single nodes apart (racks, host
# names of storage drivers): nodes are not grouped by it.
MANY_VALUES = 32
# Sizes of VMs for which the free room is kept.
SIZES_REMEMBERED = 256
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

    def among(self, keys: Iterable[str]) -> list[str]:
        """Return those of some keys that tell single nodes apart."""
        ours = self._keys
        return [key for key in keys if key in ours or key.startswith(_ALWAYS_INDIVIDUAL)]

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
        settled: From when the first and the last of these nodes count as settled, in Unix seconds;
            None where all have settled long since.
        kind: Which of :attr:`NodeGroups.kinds` these nodes are of.
        site: Which of :attr:`NodeGroups.sites` these nodes are of.
        number: Which of :attr:`NodeGroups.groups` this is.
    """

    representative: Node
    nodes: tuple[Node, ...]
    position: Mapping[str, int]
    least_allocatable: Mapping[str, int]
    settled: tuple[float, float] | None
    kind: int
    site: int
    number: int

    @property
    def settling(self) -> bool:
        """Whether labels of these nodes may still come, or might at some earlier time."""
        return self.settled is not None

    def settles_in_part(self, now: float | None) -> bool:
        """Tell whether labels may still come to some of these nodes, and to others no more."""
        if self.settled is None or now is None:
            return False
        first, last = self.settled
        return first <= now < last


# What was found for a size before, and the groups in which it may be different now.
_RoomsBefore: TypeAlias = "tuple[Rooms, frozenset[int]]"

_NO_ROOMS: tuple[None, frozenset[int]] = (None, frozenset())


class NodeGroups:
    """All nodes of a cluster and what is free on them; immutable.

    Attributes:
        by_name: All nodes.
        groups: The same, grouped; the order does not depend on the order of the nodes.
        individual: The label keys that the groups leave out.
        kinds: Groups differ in zones and the like; of these, each stands for all groups that have
            the same labels of KubeVirt, and has only those.
        sites: Likewise, each stands for all groups that have the same other labels, and the same
            taints and state.
        settles: Whether labels of any node may still come, or might at some earlier time.
        memory: What :mod:`webhook.model.placement` has found out already about these nodes; it
            changes the time that an answer takes and never the answer.
    """

    __slots__ = (
        "_free",
        "_group_of",
        "_moments",
        "_places",
        "_rooms",
        "_rooms_before",
        "_used",
        "by_name",
        "groups",
        "individual",
        "kinds",
        "memory",
        "settles",
        "sites",
    )

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
        sites: dict[object, int] = {}
        self.groups: tuple[NodeGroup, ...] = tuple(
            self._group(number, nodes, shared_labels[key], kinds, sites)
            for number, (key, nodes) in enumerate(members.items())
        )
        self.kinds: tuple[Node, ...] = tuple(Node("", dict(of_kind)) for of_kind in kinds)
        moments = {group.representative.settling_until for group in self.groups}
        self._moments = sorted(moment for moment in moments if moment is not None)
        self.settles = bool(self._moments)
        firsts: dict[int, Node] = {}
        for group in self.groups:
            firsts.setdefault(group.site, group.representative)
        self.sites: tuple[Node, ...] = tuple(
            replace(node, labels={k: v for k, v in node.labels.items() if not of_kubevirt(k)})
            for node in firsts.values()
        )
        self._group_of: Mapping[str, int] = {
            name: group.number for group in self.groups for name in group.position
        }
        self._free: list[Free | None] = [None] * len(self.groups)
        self._rooms: dict[object, Rooms] = {}
        self._rooms_before: Mapping[object, _RoomsBefore] = {}
        self.memory = Memory()
        self._places: dict[str, Mapping[str, Mapping[int, tuple[int, ...]]]] = {}

    def _group(
        self,
        number: int,
        nodes: list[Node],
        shared: Mapping[str, str],
        kinds: dict[frozenset[tuple[str, str]], int],
        sites: dict[object, int],
    ) -> NodeGroup:
        of_kind = frozenset(pair for pair in shared.items() if of_kubevirt(pair[0]))
        elsewhere = frozenset(pair for pair in shared.items() if not of_kubevirt(pair[0]))
        first = nodes[0]
        site = (elsewhere, first.taints, first.cordoned, first.ready, first.settling_until is None)
        until = [node.settling_until for node in nodes if node.settling_until is not None]
        return NodeGroup(
            representative=replace(
                nodes[0], labels=shared, capacity=fields.EMPTY, allocatable=fields.EMPTY
            ),
            nodes=tuple(nodes),
            position={node.name: position for position, node in enumerate(nodes)},
            least_allocatable=_least(node.allocatable for node in nodes),
            settled=(min(until), max(until)) if until else None,
            kind=kinds.setdefault(of_kind, len(kinds)),
            site=sites.setdefault(site, len(sites)),
            number=number,
        )

    def group_of(self, name: str) -> int | None:
        """Return the number of a node's group, None where there is no such node."""
        return self._group_of.get(name)

    def cpu_of(self, node: Node) -> HostCpu:
        """Return what the labels of one of these nodes say of its CPU; read once for each kind."""
        if self.individual.any_of(CPU_LABELS):
            return host_cpu(node.labels)
        key = (host_cpu, self.groups[self._group_of[node.name]].kind)
        return self.memory.recall(key, lambda: host_cpu(node.labels))

    def settled(self, now: float | None) -> int:
        """Return a number that is the same as long as the same groups count as settled.

        Args:
            now: Unix seconds; None where all count as settled.
        """
        return len(self._moments) if now is None else bisect_right(self._moments, now)

    def rooms(self, requests: Mapping[str, int]) -> Rooms:
        """Return which nodes have no room for requests."""
        key = frozenset(requests.items())
        known = self._rooms.get(key)
        if known is None:
            if len(self._rooms) >= SIZES_REMEMBERED:
                self._rooms.clear()
            known = self._rooms[key] = self._new_rooms(key, requests)
        return known

    def _new_rooms(self, key: object, requests: Mapping[str, int]) -> Rooms:
        before, changed = self._rooms_before.get(key, _NO_ROOMS)
        if before is None:
            return Rooms(
                tuple(room(g.nodes, self._free_of(g.number), requests) for g in self.groups),
                frozenset(
                    g.number for g in self.groups if too_small(g.least_allocatable, requests)
                ),
            )
        of_group = list(before.of_group)
        for number in changed:
            of_group[number] = room(self.groups[number].nodes, self._free_of(number), requests)
        return Rooms(tuple(of_group), before.too_small)

    def _free_of(self, number: int) -> Free:
        known = self._free[number]
        if known is None:
            found: dict[str, list[tuple[int, int]]] = {}
            for position, node in enumerate(self.groups[number].nodes):
                for name, amount in self.free(node).items():
                    found.setdefault(name, []).append((amount, position))
            known = {name: tuple(sorted(amounts)) for name, amounts in found.items()}
            self._free[number] = known
        return known

    def places(self, key: str) -> Mapping[str, Mapping[int, tuple[int, ...]]]:
        """Return where the nodes with a label are: by its value and by group, their positions."""
        known = self._places.get(key)
        if known is None:
            found: dict[str, dict[int, tuple[int, ...]]] = {}
            for group in self.groups:
                here: dict[str, list[int]] = {}
                for position, node in enumerate(group.nodes):
                    if (value := node.labels.get(key)) is not None:
                        here.setdefault(value, []).append(position)
                for value, positions in here.items():
                    found.setdefault(value, {})[group.number] = tuple(positions)
            known = self._places[key] = found
        return known

    def with_nodes(self, more: Iterable[Node]) -> NodeGroups:
        """Return these nodes and further ones, which are empty."""
        return NodeGroups((*self.by_name.values(), *more), self._used)

    def with_used(
        self, used: Mapping[str, Mapping[str, int]], changed: Collection[str]
    ) -> NodeGroups:
        """Return the same nodes with other amounts in use; what is known about them is shared.

        Args:
            used: Of all nodes, as for a new object.
            changed: The names of the nodes for which that differs from before.
        """
        groups = frozenset(n for n in map(self._group_of.get, changed) if n is not None)
        other = object.__new__(NodeGroups)
        for name in NodeGroups.__slots__:
            setattr(other, name, getattr(self, name))
        other._used = used
        other._free = [None if n in groups else f for n, f in enumerate(self._free)]
        before = {key: (rooms, old | groups) for key, (rooms, old) in self._rooms_before.items()}
        # Copied in one step: a review that runs meanwhile may add a size.
        before.update((key, (rooms, groups)) for key, rooms in self._rooms.copy().items())
        other._rooms = {}
        other._rooms_before = before if len(before) <= SIZES_REMEMBERED else {}
        return other

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

"""One virtual machine against all nodes: which can take it, and why not the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from webhook.model.obstacle import Code, Kind, Obstacle, Origin, collect, lasting
from webhook.model.obstacles import PASSING_TAINTS, obstacles, unsettled
from webhook.model.part import At, Part, Without
from webhook.model.single_nodes import SingleNodes

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from webhook.model.node import Node
    from webhook.model.node_groups import NodeGroup, NodeGroups
    from webhook.model.pod_affinity import Domains
    from webhook.model.requirements import Requirements

__all__ = ["Assessment", "Conditions", "Part", "assess", "assess_one"]


@dataclass(frozen=True, slots=True)
class Assessment:
    """All nodes, parted by their obstacles; the source, where it is known, is a part of its own."""

    parts: tuple[Part, ...]

    @property
    def others(self) -> tuple[Part, ...]:
        """All nodes but the source."""
        return tuple(part for part in self.parts if not part.is_source)

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the nodes that can take the VM now."""
        return self._names(part for part in self.parts if part.fits)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The names of the nodes that could take it once something passes."""
        return self._names(p for p in self.parts if not p.fits and not p.lasting)

    @property
    def possible(self) -> bool:
        """Whether any node is without lasting obstacles."""
        return any(not part.lasting for part in self.parts)

    @property
    def fits_somewhere(self) -> bool:
        """Whether any node can take the VM now."""
        return any(part.fits for part in self.parts)

    def by_node(self) -> Iterator[tuple[Node, tuple[Obstacle, ...]]]:
        """Yield every node with its obstacles, by name."""
        pairs = [(node, part.obstacles) for part in self.parts for node in part.nodes]
        yield from sorted(pairs, key=lambda pair: pair[0].name)

    @staticmethod
    def _names(parts: Iterator[Part]) -> tuple[str, ...]:
        return tuple(sorted([node.name for part in parts for node in part.in_any_order()]))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What else a judgement depends on.

    Attributes:
        passing_taints: Globs of taints that go by themselves.
        now: Unix seconds.
        domains: Where other pods keep the VM from, or hold it to.
        all_pods: Every pod is known, not only virtual machines.
    """

    passing_taints: Sequence[str] = PASSING_TAINTS
    now: float | None = None
    domains: tuple[Domains, ...] = ()
    all_pods: bool = False


def assess(
    requirements: Requirements, nodes: NodeGroups, conditions: Conditions | None = None
) -> Assessment:
    """Judge every node.

    The answer is the one that asking node by node would give, at the cost of asking once a group.
    """
    under = conditions or Conditions()
    shared, own = requirements.split(nodes.individual)
    away = _away(nodes, under)
    judge = _Judge(shared, own, under, nodes, away)
    # Groups in which something tells nodes apart, free room left aside.
    parted = {*away, *judge.asked_each}
    parted.update(g for g in (nodes.group_of(own.source_node),) if g is not None)
    parts: dict[tuple[Obstacle, ...], list[Sequence[Node]]] = {}
    for base, groups in _bases(shared, nodes, under):
        out = lasting(base)
        whole = parts.setdefault(base, [])
        for group in groups:
            if group.number in parted:
                for members, found in judge.parted(group, base, with_room=not out):
                    parts.setdefault(found, []).append(members)
            elif out:
                whole.append(group.nodes)
            else:
                room = judge.room[group.number]
                if room.rest:
                    whole.append(room.rest)
                for names, members in room.short:
                    found = judge.without_room(base, names, members)
                    parts.setdefault(found, []).append(members)
    return Assessment(
        tuple(Part(several[0], found, *several[1:]) for found, several in parts.items() if several)
    )


def assess_one(
    requirements: Requirements, node: Node, nodes: NodeGroups, conditions: Conditions | None = None
) -> tuple[Obstacle, ...]:
    """Judge a single node in full: obstacles, free room and other pods."""
    under = conditions or Conditions()
    found = collect(
        (
            *obstacles(requirements, node, passing_taints=under.passing_taints, now=under.now),
            *_kept_away(node, under),
        )
    )
    free = nodes.free(node)
    short = [n for n, asked in requirements.requests.items() if asked > free.get(n, asked)]
    return _with_room(found, sorted(short), node, requirements, under)


_Base = tuple["tuple[Obstacle, ...]", "tuple[NodeGroup, ...]"]


def _bases(shared: Requirements, nodes: NodeGroups, under: Conditions) -> tuple[_Base, ...]:
    """Judge what equal nodes answer alike: the groups of nodes, parted by their obstacles.

    KubeVirt's labels are judged once for each kind of node, the rest for each group. The same
    demands come again and again, so what was found out is kept beside the nodes.
    """
    # Whose labels may still come changes with the time, and nothing else does.
    settles = unsettled(shared.source_settling_until, under.now)
    key = _key(shared, under), nodes.settled(under.now), settles
    return nodes.memory.recall(key, lambda: _judged(shared, nodes, under))


def _key(shared: Requirements, under: Conditions) -> object:
    return (
        tuple((s.key, s.value, s.origin, s.code, s.certain) for s in shared.selectors.values()),
        shared.any_of,
        shared.absent,
        shared.affinity,
        shared.topologies,
        shared.tolerations,
        shared.passthrough,
        shared.everywhere,
        shared.node_state,
        shared.rolling_out,
        shared.foreign_scheduler,
        tuple(under.passing_taints),
    )


def _judged(shared: Requirements, nodes: NodeGroups, under: Conditions) -> tuple[_Base, ...]:
    of_kubevirt, rest = shared.split_off_kubevirt()
    of_kind = [
        obstacles(of_kubevirt, kind, passing_taints=under.passing_taints) for kind in nodes.kinds
    ]
    of_site = [_of(rest, site, under) for site in nodes.sites]
    alike: dict[tuple[object, ...], list[NodeGroup]] = {}
    found: dict[tuple[object, ...], tuple[Obstacle, ...]] = {}
    for group in nodes.groups:
        if group.settling or shared.source_settling_until is not None:
            key: tuple[object, ...] = (group.number,)
            found[key] = _of(shared, group.representative, under)
        else:
            key = (group.kind, of_site[group.site])
            if key not in found:
                found[key] = collect((*of_kind[group.kind], *of_site[group.site]))
        alike.setdefault(key, []).append(group)
    return tuple((found[key], tuple(groups)) for key, groups in alike.items())


def _of(shared: Requirements, node: Node, under: Conditions) -> tuple[Obstacle, ...]:
    return obstacles(shared, node, passing_taints=under.passing_taints, now=under.now)


class _Judge:
    """Tells the nodes of a group apart, by what single nodes answer each in its own way."""

    def __init__(
        self,
        shared: Requirements,
        own: Requirements,
        under: Conditions,
        nodes: NodeGroups,
        away: Mapping[int, Collection[int]],
    ) -> None:
        self._shared = shared
        self._own = own
        self._single = SingleNodes(own, nodes.individual, under.now)
        self._under = under
        self._away = away
        self._known: dict[object, tuple[Obstacle, ...]] = {}
        rooms = nodes.rooms(own.requests)
        self.room = rooms.of_group
        # Where a demand speaks of single nodes, and where only some of the nodes have settled.
        self._own_each: Collection[int] = rooms.too_small
        if own.selectors or own.affinity is not None or own.topologies:
            self._own_each = range(len(nodes.groups))
        self.asked_each: Collection[int] = self._own_each
        if nodes.settles:
            in_part = (g.number for g in nodes.groups if g.settles_in_part(under.now))
            self.asked_each = {*self._own_each, *in_part}

    def parted(
        self, group: NodeGroup, base: tuple[Obstacle, ...], *, with_room: bool
    ) -> Iterator[tuple[Sequence[Node], tuple[Obstacle, ...]]]:
        """Yield the nodes of a group that have the same obstacles, with them."""
        differs = self._differing(group, base)
        left_out = set(differs)
        for names, members in self.room[group.number].short if with_room else ():
            positions = set(members.positions)
            for position in positions & differs.keys():
                node = group.nodes[position]
                differs[position] = _with_room(
                    differs[position], names, node, self._own, self._under
                )
            rest = positions - differs.keys()
            left_out |= rest
            if rest:
                yield At(group.nodes, tuple(sorted(rest))), self.without_room(base, names, members)
        if len(left_out) < len(group.nodes):
            yield Without(group.nodes, left_out) if left_out else group.nodes, base
        together: dict[tuple[Obstacle, ...], list[int]] = {}
        for position, found in differs.items():
            together.setdefault(found, []).append(position)
        for found, places in together.items():
            yield At(group.nodes, tuple(sorted(places))), found

    def without_room(
        self, base: tuple[Obstacle, ...], names: tuple[str, ...], members: At
    ) -> tuple[Obstacle, ...]:
        """Return the obstacles of nodes on which resources are used up."""
        known = self._known.get((base, names))
        if known is None:
            known = _with_room(base, names, members[0], self._own, self._under)
            self._known[base, names] = known
        return known

    def _settling(
        self, group: NodeGroup, node: Node, bases: dict[bool, tuple[Obstacle, ...]]
    ) -> tuple[Obstacle, ...]:
        """Return what stands in the way on a node whose labels may still come, or no more."""
        settles = unsettled(node.settling_until, self._under.now)
        known = bases.get(settles)
        if known is None:
            settling = replace(group.representative, settling_until=node.settling_until)
            known = bases[settles] = _of(self._shared, settling, self._under)
        return known

    def _differing(
        self, group: NodeGroup, base: tuple[Obstacle, ...]
    ) -> dict[int, tuple[Obstacle, ...]]:
        own, under = self._own, self._under
        differs: dict[int, tuple[Obstacle, ...]] = {}
        if group.number in self.asked_each:
            each = group.number in self._own_each
            bases: dict[bool, tuple[Obstacle, ...]] = {}
            known: dict[Hashable, tuple[Obstacle, ...]] = {}
            for position, node in enumerate(group.nodes):
                here = self._settling(group, node, bases) if group.settling else base
                found = here
                if each or node.name == own.source_node:
                    key = self._single.key(node, group)
                    if key not in known:
                        alone = self._single.about(node, key)
                        known[key] = collect((*here, *alone)) if alone else here
                    found = known[key]
                if found is not base and found != base:
                    differs[position] = found
        elif own.source_node in group.position:
            position = group.position[own.source_node]
            alone = obstacles(own, group.nodes[position], now=under.now)
            differs[position] = collect((*base, *alone))
        for position in self._away.get(group.number, ()):
            kept = _kept_away(group.nodes[position], under)
            differs[position] = collect((*differs.get(position, base), *kept))
        return differs


def _away(nodes: NodeGroups, under: Conditions) -> dict[int, set[int]]:
    """Return the nodes from which other pods keep the VM away: by group, their positions."""
    found: dict[int, set[int]] = {}
    for domain in under.domains:
        places = nodes.places(domain.term.topology_key)
        if domain.term.anti:
            for value in domain.values & places.keys():
                for number, positions in places[value].items():
                    found.setdefault(number, set()).update(positions)
            continue
        near = places.keys() if domain.bootstrap else domain.values & places.keys()
        for group in nodes.groups:
            others = set(range(len(group.nodes)))
            for value in near:
                others.difference_update(places[value].get(group.number, ()))
            if others:
                found.setdefault(group.number, set()).update(others)
    return found


def _kept_away(node: Node, under: Conditions) -> tuple[Obstacle, ...]:
    return tuple(
        Obstacle(
            Code.POD_AFFINITY,
            Kind.PASSING,
            Origin.VM,
            detail=f"{'keeps away from' if domain.term.anti else 'must be near'} other pods "
            f"by {domain.term.topology_key}",
        )
        for domain in under.domains
        if domain.excludes(node)
    )


def _with_room(
    found: tuple[Obstacle, ...],
    short: Sequence[str],
    node: Node,
    requirements: Requirements,
    under: Conditions,
) -> tuple[Obstacle, ...]:
    """Add that there is no room now, where nothing lasting stands in the way anyhow."""
    if lasting(found):
        return found
    # More than the node has at all is told already, and better, by its size.
    names = [n for n in short if requirements.requests[n] <= node.allocatable.get(n, 0)]
    if not names:
        return found
    counted = "" if under.all_pods else ", counting virtual machines only"
    detail = f"has no room for {' and '.join(names)} now{counted}"
    return collect((*found, Obstacle(Code.RESOURCES, Kind.PASSING, Origin.VM, detail=detail)))

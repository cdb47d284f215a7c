"""One virtual machine against all nodes: which can take it, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from webhook.model.obstacle import Code, Kind, Obstacle, Origin, collect, fits, lasting
from webhook.model.obstacles import PASSING_TAINTS, obstacles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhook.model.node import Node
    from webhook.model.node_groups import NodeGroup, NodeGroups
    from webhook.model.pod_affinity import Domains
    from webhook.model.requirements import Requirements


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes with the very same obstacles."""

    nodes: tuple[Node, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def fits(self) -> bool:
        """Whether these nodes can take the VM now."""
        return fits(self.obstacles)

    @property
    def lasting(self) -> bool:
        """Whether waiting does not help on these nodes."""
        return lasting(self.obstacles)

    @property
    def is_source(self) -> bool:
        """Whether this is the node that the VM runs on."""
        return any(o.code is Code.SAME_NODE for o in self.obstacles)


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
        return tuple(sorted(node.name for part in parts for node in part.nodes))


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
    parts: dict[tuple[Obstacle, ...], list[tuple[Node, ...]]] = {}
    for group in nodes.groups:
        for members, found in _judge(group, shared, own, under):
            parts.setdefault(found, []).append(members)
    return Assessment(tuple(Part(_merged(several), found) for found, several in parts.items()))


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


def _merged(several: list[tuple[Node, ...]]) -> tuple[Node, ...]:
    if len(several) == 1:
        return several[0]
    return tuple(sorted((n for members in several for n in members), key=lambda n: n.name))


def _judge(
    group: NodeGroup, shared: Requirements, own: Requirements, under: Conditions
) -> Iterator[tuple[tuple[Node, ...], tuple[Obstacle, ...]]]:
    def of_group(node: Node) -> tuple[Obstacle, ...]:
        return obstacles(shared, node, passing_taints=under.passing_taints, now=under.now)

    base = of_group(group.representative)
    differs: dict[int, tuple[Obstacle, ...]] = {}
    if _asks_each(group, own):
        for position, node in enumerate(group.nodes):
            here = base
            if group.settling:
                settling = replace(group.representative, settling_until=node.settling_until)
                here = of_group(settling)
            found = collect((*here, *obstacles(own, node, now=under.now)))
            if found != base:
                differs[position] = found
    elif own.source_node in group.position:
        position = group.position[own.source_node]
        alone = obstacles(own, group.nodes[position], now=under.now)
        differs[position] = collect((*base, *alone))
    if under.domains:
        for position, node in enumerate(group.nodes):
            kept = _kept_away(node, under)
            if kept:
                differs[position] = collect((*differs.get(position, base), *kept))
    if not lasting(base):
        for position, short in group.short_of(own.requests).items():
            found = differs.get(position, base)
            node = group.nodes[position]
            differs[position] = _with_room(found, short, node, own, under)
    yield from _parted(group, base, differs)


def _asks_each(group: NodeGroup, own: Requirements) -> bool:
    """Tell whether a demand speaks of what tells these nodes apart, free room left aside."""
    if own.selectors or own.affinity is not None or own.topologies or group.settling:
        return True
    least = group.least_allocatable
    return bool(least) and any(asked > least.get(n, 0) for n, asked in own.requests.items())


def _parted(
    group: NodeGroup, base: tuple[Obstacle, ...], differs: Mapping[int, tuple[Obstacle, ...]]
) -> Iterator[tuple[tuple[Node, ...], tuple[Obstacle, ...]]]:
    if not differs:
        yield group.nodes, base
        return
    alike = tuple(n for position, n in enumerate(group.nodes) if position not in differs)
    if alike:
        yield alike, base
    for position, found in differs.items():
        yield (group.nodes[position],), found


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

"""What is free on nodes, for one size of VM."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from webhook.model.part import At

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.model.node import Node


class Room(NamedTuple):
    """What is free on a group of nodes, for one size of VM.

    Attributes:
        short: The nodes on which resources are used up, with the names of these.
        rest: The other nodes.
    """

    short: tuple[tuple[tuple[str, ...], At], ...]
    rest: Sequence[Node]


class Rooms(NamedTuple):
    """What is free, group by group; ``too_small`` are groups with nodes that never fit the size."""

    of_group: tuple[Room, ...]
    too_small: frozenset[int]


# Of each resource what is left of it on each node of a group, as pairs of amount and position, the
# smallest amount first; nodes that do not report a resource are left out.
Free: TypeAlias = "Mapping[str, tuple[tuple[int, int], ...]]"


def _short_of(free: Free, requests: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the positions of the nodes on which a resource is used up, by the resource."""
    short: dict[str, list[int]] = {}
    for name, asked in requests.items():
        ordered = free.get(name, ())
        end = bisect_left(ordered, (asked, -1))
        if end:
            short[name] = [position for _, position in ordered[:end]]
    return short


def room(nodes: tuple[Node, ...], free: Free, requests: Mapping[str, int]) -> Room:
    """Part nodes into those without room for requests, and the rest."""
    short = _short_of(free, requests)
    if not short:
        return Room((), nodes)
    names: dict[int, tuple[str, ...]] = {}
    for name in sorted(short):
        for position in short[name]:
            names[position] = (*names.get(position, ()), name)
    together: dict[tuple[str, ...], list[int]] = {}
    for position in sorted(names):
        together.setdefault(names[position], []).append(position)
    rest = tuple(position for position in range(len(nodes)) if position not in names)
    return Room(
        tuple((several, At(nodes, tuple(at))) for several, at in together.items()),
        At(nodes, rest),
    )


def too_small(least: Mapping[str, int], requests: Mapping[str, int]) -> bool:
    """Tell whether nodes with this least allocatable never fit requests; empty is unknown."""
    return bool(least) and any(asked > least.get(name, 0) for name, asked in requests.items())

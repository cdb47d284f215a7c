"""Where a host-model guest should boot first, so that it can leave again later.

A host-model guest gets the CPU of the node it boots on, and may go only where that CPU is. On mixed
nodes some are dead ends: their guests fit nowhere else. The nodes that can take each other's guests
form exchange groups; a start is best led to the largest.

Source: KubeVirt ``pkg/virt-controller/watch/migration/migration.go`` (what a host-model guest needs
elsewhere); Kubernetes ``PreferredSchedulingTerm``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.model import labels
from webhook.model.cpu_kinds import cpu_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.model.cpu_kinds import CpuKind
    from webhook.model.node import Node

WEIGHT = 50
"""Of 1 to 100: half of the strongest wish that the VM's owner can state."""


def preference(choices: Iterable[tuple[Node, int]]) -> tuple[dict[str, Any], ...]:
    """Return the preferred node affinity that leads a start to the largest exchange group.

    Args:
        choices: Nodes that the VM can start on, each standing for a number of nodes with the same
            CPU, itself among them.

    Returns:
        Items of ``preferredDuringSchedulingIgnoredDuringExecution``, one for each CPU of the group.
        Empty where no node is better than another: all are in one group, or no two nodes can take
        each other's guests.
    """
    count: dict[str, int] = {}
    nodes = []
    for node, number in choices:
        nodes.append(node)
        count[node.name] = number
    sized = [(kind, sum(count[name] for name in kind.names)) for kind in cpu_kinds(nodes)]
    group, size = _largest_exchange_group(sized)
    outside = [kind for kind, _ in sized if kind not in group]
    if not outside or size < 2:
        return ()
    terms: list[dict[str, Any]] = []
    for kind in group:
        term = {"weight": WEIGHT, "preference": {"matchExpressions": _told_apart(kind, outside)}}
        if term not in terms:
            terms.append(term)
    return tuple(terms)


def _largest_exchange_group(kinds: Sequence[tuple[CpuKind, int]]) -> tuple[list[CpuKind], int]:
    """Return the kinds that all can take each other's guests, and how many nodes these are.

    Every kind is tried as a beginning, and the others join by the number of their nodes. A search
    for the very largest group would take exponential time; this one can miss it only where guests
    can go from A to B and from B to C, but not from A to C.
    """
    able = [(kind, size) for kind, size in kinds if kind.host_model and kind.can_take_from(kind)]
    by_size = sorted(able, key=lambda pair: (-pair[1], min(pair[0].names)))
    best: tuple[list[CpuKind], int] = ([], 0)
    for first, size in by_size:
        group, total = [first], size
        for kind, more in by_size:
            if kind is not first and all(_exchange(kind, other) for other in group):
                group.append(kind)
                total += more
        if total > best[1]:
            best = (group, total)
    return best


def _exchange(one: CpuKind, other: CpuKind) -> bool:
    return one.can_take_from(other) and other.can_take_from(one)


def _told_apart(kind: CpuKind, outside: Sequence[CpuKind]) -> list[dict[str, Any]]:
    """Return demands that a kind of node meets, and none of those outside."""
    own = labels.HOST_MODEL_CPU + kind.host_model
    demands = [_has(own)]
    for other in outside:
        if own not in other.marks:
            continue
        more = sorted(kind.marks - other.marks)
        demand = _has(more[0]) if more else _lacks(min(other.marks - kind.marks))
        if demand not in demands:
            demands.append(demand)
    return demands


def _has(key: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": ["true"]}


def _lacks(key: str) -> dict[str, Any]:
    return {"key": key, "operator": "DoesNotExist"}

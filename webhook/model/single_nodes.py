"""What demands on single nodes find there, found out once for all nodes that answer alike.

Host names, frequencies and sizes have to be looked at node by node, but most nodes then give the
same answer: the one of a node that no term names, that is large enough, that lacks the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.node_affinity import METADATA_NAME
from webhook.model.obstacles import obstacles, size_faults, unsettled

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from webhook.model.node import Node
    from webhook.model.node_affinity import Expression, Term
    from webhook.model.node_groups import IndividualKeys, NodeGroup
    from webhook.model.obstacle import Obstacle
    from webhook.model.requirements import Requirements

    # The values that demands name of a label; None where any value may count.
    _Named = Mapping[str, frozenset[str] | None]

_NOT_THERE, _NOT_NAMED = object(), object()


class SingleNodes:
    """Asks single nodes, and remembers answers by all that they depend on.

    Args:
        own: Demands that single nodes answer each in its own way.
        individual: The label keys by which nodes are not grouped.
        now: Unix seconds.
    """

    def __init__(self, own: Requirements, individual: IndividualKeys, now: float | None) -> None:
        self._own = own
        self._now = now
        named = _named(own)
        self._of_node = {key: values for key, values in named.items() if key in individual}
        self._of_group = {key: values for key, values in named.items() if key not in individual}
        self._known_groups: dict[int, tuple[object, ...]] = {}
        self._known: dict[Hashable, tuple[Obstacle, ...]] = {}

    def key(self, node: Node, group: NodeGroup) -> Hashable:
        """Return all that the answer about a node depends on: nodes with the same answer alike.

        Args:
            node: The node.
            group: The group that it is in.
        """
        shared = self._known_groups.get(group.number)
        if shared is None:
            shared = _told_apart(self._of_group, group.representative)
            self._known_groups[group.number] = shared
        return (
            shared,
            _told_apart(self._of_node, node),
            size_faults(self._own.requests, node),
            node.name == self._own.source_node,
            unsettled(node.settling_until, self._now),
        )

    def about(self, node: Node, key: Hashable) -> tuple[Obstacle, ...]:
        """Return what stands in the way on a node.

        Args:
            node: The node.
            key: What :meth:`key` says of it.
        """
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = obstacles(self._own, node, now=self._now)
        return known


def _named(own: Requirements) -> _Named:
    found: dict[str, set[str] | None] = {}
    for expression in _expressions((*(own.affinity or ()), *_terms(own))):
        known = found.setdefault(expression.key, set())
        if known is None or expression.operator in ("Gt", "Lt"):
            found[expression.key] = None
        else:
            known.update(expression.values)
    for key, selector in own.selectors.items():
        known = found.setdefault(key, set())
        if key == labels.HOSTNAME and known is not None:
            known.add(selector.value)
        else:
            # An obstacle names the value that a node has instead.
            found[key] = None
        if key.startswith(labels.TSC_FREQUENCY):
            found |= {labels.TSC_FREQUENCY_OF_NODE: None, labels.TSC_SCALABLE: None}
    return {key: None if v is None else frozenset(v) for key, v in found.items()}


def _terms(own: Requirements) -> Iterable[Term]:
    return (term for topology in own.topologies for term in topology.terms)


def _expressions(terms: Iterable[Term]) -> Iterable[Expression]:
    return (expression for term in terms for expression in (*term.expressions, *term.fields))


def _told_apart(named: _Named, node: Node) -> tuple[object, ...]:
    """Return all that demands can tell of a node's labels and name."""
    found: list[object] = []
    for key, values in named.items():
        at = node.name if key == METADATA_NAME else node.labels.get(key)
        if at is None:
            found.append(_NOT_THERE)
        else:
            found.append(at if values is None or at in values else _NOT_NAMED)
    return tuple(found)

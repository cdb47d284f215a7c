"""Equal strings and mappings kept once: thousands of nodes carry the same labels."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.migration import LauncherPod
    from webhook.model.node import Node


class Sharing:
    """Gives back the first of equal things; one for each reading of the facts."""

    __slots__ = ("_amounts", "_labels")

    def __init__(self) -> None:
        """Begin with nothing to share."""
        self._amounts: dict[frozenset[tuple[str, int]], Mapping[str, int]] = {}
        self._labels: dict[frozenset[tuple[str, str]], Mapping[str, str]] = {}

    def node(self, node: Node) -> Node:
        """Return an equal node whose labels and sizes are shared."""
        return replace(
            node,
            labels=_interned(node.labels),
            capacity=self._amount(node.capacity),
            allocatable=self._amount(node.allocatable),
        )

    def pod(self, pod: LauncherPod) -> LauncherPod:
        """Return an equal pod whose labels, selectors and requests are shared."""
        return replace(
            pod,
            labels=_interned(pod.labels),
            node_selector=self._mapping(pod.node_selector),
            requests=self._amount(pod.requests),
        )

    def _amount(self, amounts: Mapping[str, int]) -> Mapping[str, int]:
        return self._amounts.setdefault(frozenset(amounts.items()), amounts)

    def _mapping(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        key = frozenset(labels.items())
        found = self._labels.get(key)
        if found is None:
            found = self._labels[key] = _interned(labels)
        return found


def _interned(labels: Mapping[str, str]) -> Mapping[str, str]:
    intern = sys.intern
    return {intern(key): intern(value) for key, value in labels.items()}

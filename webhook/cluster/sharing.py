"""Equal strings and mappings kept once: thousands of nodes carry the same labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.migration import LauncherPod
    from webhook.model.node import Node

# Things that come and go (names, uids) must not pile up here: beyond this, sharing begins anew.
MOST_SHARED = 100_000


class Sharing:
    """Gives back the first of equal things."""

    __slots__ = ("_amounts", "_labels", "_strings")

    def __init__(self) -> None:
        """Begin with nothing to share."""
        self._amounts: dict[frozenset[tuple[str, int]], Mapping[str, int]] = {}
        self._labels: dict[frozenset[tuple[str, str]], Mapping[str, str]] = {}
        self._strings: dict[str, str] = {}

    def node(self, node: Node) -> Node:
        """Return an equal node whose labels and sizes are shared."""
        return replace(
            node,
            labels=self._interned(node.labels),
            capacity=self._amount(node.capacity),
            allocatable=self._amount(node.allocatable),
        )

    def pod(self, pod: LauncherPod) -> LauncherPod:
        """Return an equal pod whose labels, selectors and requests are shared."""
        return replace(
            pod,
            labels=self._interned(pod.labels),
            node_selector=self._mapping(pod.node_selector),
            requests=self._amount(pod.requests),
        )

    def _amount(self, amounts: Mapping[str, int]) -> Mapping[str, int]:
        if len(self._amounts) >= MOST_SHARED:
            self._amounts.clear()
        return self._amounts.setdefault(frozenset(amounts.items()), amounts)

    def _mapping(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        key = frozenset(labels.items())
        found = self._labels.get(key)
        if found is None:
            if len(self._labels) >= MOST_SHARED:
                self._labels.clear()
            found = self._labels[key] = self._interned(labels)
        return found

    def _interned(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        if len(self._strings) >= MOST_SHARED:
            self._strings.clear()
        first = self._strings.setdefault
        return {first(key, key): first(value, value) for key, value in labels.items()}

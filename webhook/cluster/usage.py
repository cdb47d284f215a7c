"""What is in use on each node, kept up to date pod by pod and VMI by VMI."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from webhook.cluster.pods import is_launcher
from webhook.model.requests import derived_requests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.kubevirt import KubeVirt
    from webhook.model.migration import LauncherPod
    from webhook.model.virtual_machine import VirtualMachineInstance

Item = TypeVar("Item")
_ONE_POD = 1000


class Usage:
    """The amounts that pods take on their nodes, and VMIs whose pod is not known.

    Only nodes on which something changed are counted again.
    """

    __slots__ = ("_pods", "_touched", "_used", "_vmis")

    def __init__(self) -> None:
        """Begin with empty nodes."""
        self._pods: dict[str, dict[str, LauncherPod]] = {}
        self._vmis: dict[str, dict[str, VirtualMachineInstance]] = {}
        self._used: Mapping[str, Mapping[str, int]] = {}
        self._touched: set[str] = set()

    def note_pod(self, key: str, before: LauncherPod | None, after: LauncherPod | None) -> None:
        """Take up that a pod came, changed or went; finished ones count as gone."""
        old = before.node_name if before is not None and not before.finished else ""
        new = after.node_name if after is not None and not after.finished else ""
        _move(self._pods, self._touched, key, after, (old, new))

    def note_vmi(
        self, key: str, before: VirtualMachineInstance | None, after: VirtualMachineInstance | None
    ) -> None:
        """Take up that a VMI came, changed or went."""
        old = before.node_name if before is not None and before.running else ""
        new = after.node_name if after is not None and after.running else ""
        _move(self._vmis, self._touched, key, after, (old, new))

    def note_kubevirt(self) -> None:
        """Take up that KubeVirt is configured anew: what a VMI asks depends on that."""
        self._touched.update(self._vmis)

    def used(self, kubevirt: KubeVirt) -> tuple[Mapping[str, Mapping[str, int]], frozenset[str]]:
        """Return what is in use, and on which nodes that differs from the last answer.

        Amounts are in thousandths of the base unit, by resource, by node. What was returned
        before is not changed.
        """
        touched = frozenset(self._touched)
        if touched:
            self._touched.clear()
            used = dict(self._used)
            for node in touched:
                here = self._of_node(node, kubevirt)
                if here:
                    used[node] = here
                else:
                    used.pop(node, None)
            self._used = used
        return self._used, touched

    def _of_node(self, node: str, kubevirt: KubeVirt) -> dict[str, int]:
        here: dict[str, int] = {}
        housed = set()
        for pod in self._pods.get(node, {}).values():
            _take(here, pod.requests)
            if is_launcher(pod):
                housed.add(pod.vmi_uid)
                housed.add(f"{pod.namespace}/{pod.vmi_name}")
        for key, vmi in self._vmis.get(node, {}).items():
            if (vmi.uid or key) not in housed:
                _take(here, derived_requests(vmi, kubevirt))
        return here


def _move(
    by_node: dict[str, dict[str, Item]],
    touched: set[str],
    key: str,
    item: Item | None,
    nodes: tuple[str, str],
) -> None:
    """Take an item from the first of two nodes to the second; "" is none."""
    old, new = nodes
    if old:
        touched.add(old)
        here = by_node[old]
        del here[key]
        if not here:
            del by_node[old]
    if new and item is not None:
        touched.add(new)
        by_node.setdefault(new, {})[key] = item


def _take(used: dict[str, int], requests: Mapping[str, int]) -> None:
    for name, amount in requests.items():
        used[name] = used.get(name, 0) + amount
    used["pods"] = used.get("pods", 0) + _ONE_POD

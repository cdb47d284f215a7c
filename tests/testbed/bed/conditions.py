"""What the status of an object says."""

from __future__ import annotations

from tests.testbed.bed.api import Object


def settled(node: Object) -> bool:
    """Tell whether a node is ready, and free of the taints with which it begins."""
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    return has_condition(node, "Ready") and "node.kubernetes.io/not-ready" not in taints


def has_condition(obj: Object, kind: str) -> bool:
    """Tell whether a condition is true."""
    # A definition that was just made says null.
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def unschedulable(pod: Object) -> str | None:
    """Return why the scheduler found no node for a pod; None where it did not say that."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message: str = condition.get("message", "")
            return message
    return None

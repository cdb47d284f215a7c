"""What the decision needs to know of a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.model import fields, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, order=True)
class Taint:
    """A node's taint; ``effect`` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        """Return the taint as kubectl writes it: ``key=value:effect``."""
        return (
            f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"
        )


@dataclass(frozen=True, slots=True)
class Node:
    """A node, pruned to what placement depends on.

    Attributes:
        name: The object's name.
        labels: All labels.
        taints: All taints, in the order of the object.
        cordoned: ``spec.unschedulable``.
        ready: The Ready condition; a node that reports none counts as ready.
        capacity: Resources in thousandths of their base unit; empty where nothing is reported
            (``allocatable`` then stands for it).
        allocatable: As capacity, less what the node keeps for itself.
        settling_until: Until when (Unix seconds) missing labels may still come: the node is new, or
            lost a label lately. None: settled.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False
    ready: bool = True
    capacity: Mapping[str, int] = field(default_factory=dict)
    allocatable: Mapping[str, int] = field(default_factory=dict)
    settling_until: float | None = None

    @classmethod
    def from_object(cls, obj: fields.Object) -> Node:
        """Read a v1 Node.

        Raises:
            InvalidObject: A field has a type or a value that a Node cannot have.
        """
        ready = True
        for condition in fields.items(obj, "status", "conditions"):
            if condition.get("type") == "Ready":
                ready = fields.text(condition, "status") == "True"
        allocatable = resources(obj, "status", "allocatable")
        return cls(
            name=fields.text(obj, "metadata", "name"),
            labels=fields.labels(obj, "metadata", "labels"),
            taints=tuple(
                Taint(fields.text(t, "key"), fields.text(t, "value"), fields.text(t, "effect"))
                for t in fields.items(obj, "spec", "taints")
            ),
            cordoned=bool(fields.flag(obj, "spec", "unschedulable")),
            ready=ready,
            capacity=resources(obj, "status", "capacity") or allocatable,
            allocatable=allocatable,
        )


def resources(obj: fields.Object, *path: str) -> Mapping[str, int]:
    """Read a resource list in thousandths of the base unit.

    Raises:
        InvalidObject: A value is no quantity.
    """
    found = {}
    for name, value in fields.mapping(obj, *path).items():
        try:
            found[str(name)] = quantity.milli(value)
        except quantity.InvalidQuantity as error:
            raise fields.InvalidObject(".".join((*path, str(name))), str(error)) from None
    return found

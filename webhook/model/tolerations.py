"""Taints and the tolerations that make them not matter.

Sources: ``k8s.io/api/core/v1/toleration.go`` (``ToleratesTaint``),
Kubernetes ``pkg/scheduler/framework/plugins/tainttoleration`` (which effects keep a pod away).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.node_affinity import int64

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.model.node import Taint

KEEPS_AWAY = ("NoSchedule", "NoExecute")

_CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a pod.

    Attributes:
        key: The taint's key, "" for every key.
        operator: Equal ("" means the same) or Exists; Gt and Lt, which Kubernetes has since 1.35
            behind the gate TaintTolerationComparisonOperators, are judged as if it were on.
        value: What the taint's value is compared with.
        effect: The taint's effect, "" for every effect.
    """

    key: str
    operator: str = ""
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether the taint does not matter to the pod; never with an unknown operator."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        match self.operator:
            case "" | "Equal":
                return self.value == taint.value
            case "Exists":
                return True
            case "Gt" | "Lt":
                return self._compares(taint.value)
        return False

    def _compares(self, at: str) -> bool:
        is_at, limit = _integer(at), _integer(self.value)
        if is_at is None or limit is None:
            return False
        return is_at > limit if self.operator == "Gt" else is_at < limit


def _integer(text: str) -> int | None:
    # Stricter than a node selector's Gt: no plus sign, no leading zero.
    return int64(text) if _CANONICAL_INTEGER.fullmatch(text) else None


def read_tolerations(obj: object, *path: str) -> tuple[Toleration, ...]:
    """Read a list of tolerations, empty where there is none.

    ``tolerationSeconds`` is left out: it says how long a pod stays, not whether it may come.

    Args:
        obj: The raw list.
        path: Where it stands, for errors.

    Raises:
        InvalidObject: The list or a field has a type that a toleration cannot have.
    """
    here = ".".join(path) or "document"
    found = []
    for index, item in enumerate(fields.items({here: obj}, here)):
        try:
            toleration = Toleration(
                key=fields.text(item, "key"),
                operator=fields.text(item, "operator"),
                value=fields.text(item, "value"),
                effect=fields.text(item, "effect"),
            )
        except fields.InvalidObject as error:
            raise fields.InvalidObject(f"{here}[{index}].{error.path}", error.message) from None
        found.append(toleration)
    return tuple(found)


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> tuple[Taint, ...]:
    """Return the taints that keep a pod with these tolerations away, in their order.

    PreferNoSchedule never does.
    """
    held = tuple(tolerations)
    return tuple(
        taint
        for taint in taints
        if taint.effect in KEEPS_AWAY
        and not any(toleration.tolerates(taint) for toleration in held)
    )

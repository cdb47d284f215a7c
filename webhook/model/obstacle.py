"""What stands between a virtual machine and a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Origin(StrEnum):
    """Where a demand comes from."""

    VM = "vm"
    NETWORK = "network"
    CPU_MODEL = "cpu-model"
    SOURCE_CPU = "source-cpu"
    REMEMBERED = "remembered"
    CHOSEN_TARGET = "chosen-target"
    KUBEVIRT = "kubevirt"
    GUARD = "guard"


class Kind(StrEnum):
    """Whether waiting helps; a risk never makes a node unfit."""

    LASTING = "lasting"
    PASSING = "passing"
    RISK = "risk"


class Code(StrEnum):
    """The closed list of obstacles, in the order in which a person reads them."""

    SAME_NODE = "same-node"
    NO_KUBEVIRT = "no-kubevirt"
    ARCHITECTURE = "architecture"
    SOURCE_CPU_UNKNOWN = "source-cpu-unknown"
    CPU_VENDOR = "cpu-vendor"
    CPU_MODEL = "cpu-model"
    CPU_FEATURE = "cpu-feature"
    HOST_MODEL_OBSOLETE = "host-model-obsolete"
    PASSTHROUGH_CPU = "passthrough-cpu"
    MACHINE_TYPE = "machine-type"
    TSC_FREQUENCY = "tsc-frequency"
    HYPERV = "hyperv"
    REALTIME = "realtime"
    SEV = "sev"
    TDX = "tdx"
    CPU_MANAGER = "cpu-manager"
    NETWORK = "network"
    NODE_SELECTOR = "node-selector"
    NODE_AFFINITY = "node-affinity"
    VOLUME_TOPOLOGY = "volume-topology"
    TAINT = "taint"
    NOT_SCHEDULABLE = "not-schedulable"
    CORDONED = "cordoned"
    NOT_READY = "not-ready"
    POD_AFFINITY = "pod-affinity"
    RESOURCES = "resources"


_RANK = {code: rank for rank, code in enumerate(Code)}
_KIND_RANK = {Kind.LASTING: 0, Kind.PASSING: 1, Kind.RISK: 2}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason why a node cannot take a virtual machine, or may take it badly.

    Attributes:
        missing: Label keys that the node lacks (``key=value`` where the value is not "true").
        present: Labels and taints that should not be there.
        detail: The same in words, for a person.
    """

    code: Code
    kind: Kind
    origin: Origin
    missing: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    detail: str = ""

    def passing(self) -> Obstacle:
        """Return the obstacle as one that may go by itself, where it was lasting."""
        return replace(self, kind=Kind.PASSING) if self.kind is Kind.LASTING else self


def collect(found: Iterable[Obstacle]) -> tuple[Obstacle, ...]:
    """Put obstacles in reading order; those of one code, kind and origin become one."""
    alike: dict[tuple[int, int, str], list[Obstacle]] = {}
    for obstacle in found:
        key = (_KIND_RANK[obstacle.kind], _RANK[obstacle.code], obstacle.origin.value)
        alike.setdefault(key, []).append(obstacle)
    return tuple(_merged(alike[key]) for key in sorted(alike))


def _merged(several: list[Obstacle]) -> Obstacle:
    """Make one obstacle of several; whatever their order, it comes out the same."""
    if len(several) == 1:
        return several[0]
    return replace(
        several[0],
        missing=tuple(sorted({label for obstacle in several for label in obstacle.missing})),
        present=tuple(sorted({label for obstacle in several for label in obstacle.present})),
        detail="; ".join(sorted({part for o in several for part in o.detail.split("; ") if part})),
    )


def lasting(found: Iterable[Obstacle]) -> bool:
    """Tell whether any of the obstacles lasts."""
    return any(obstacle.kind is Kind.LASTING for obstacle in found)


def fits(found: Iterable[Obstacle]) -> bool:
    """Tell whether the node can take the VM now: there is nothing, or only risks."""
    return all(obstacle.kind is Kind.RISK for obstacle in found)

"""What a forecast says: where each virtual machine could go, and which nodes could be drained."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from webhook.model.obstacle import Code, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.model.placement import Assessment

BLOCKED = "blocked"


class Verdict(StrEnum):
    """Whether a VM can leave its node."""

    MOVABLE = "movable"
    ONE_NODE = "one-node"
    WAITING = "waiting"
    STUCK = "stuck"
    BLOCKED = BLOCKED

    @property
    def leaves(self) -> bool:
        """Whether a drain of its node would move the VM."""
        return self in (Verdict.MOVABLE, Verdict.ONE_NODE)

    @classmethod
    def of(cls, targets: int, waiting: int) -> Verdict:
        """Return the verdict on a VM by the number of its targets and of the nodes to come."""
        if targets:
            return cls.MOVABLE if targets > 1 else cls.ONE_NODE
        return cls.WAITING if waiting else cls.STUCK


class Reason(NamedTuple):
    """Nodes that are out by one obstacle code, and the labels that they lack; all sorted."""

    code: str
    nodes: tuple[str, ...]
    missing: tuple[str, ...]


class Prospects:
    """What VMs with equal demands have in common: the nodes that can take them, and the others.

    Each VM leaves its own node out. The lists are made when somebody asks for them.
    """

    __slots__ = ("_assessment", "_draining", "_open", "_reasons", "_targets", "_waiting")

    def __init__(self, assessment: Assessment, draining: frozenset[str]) -> None:
        """Take an assessment without a source, and the nodes that are no targets."""
        self._assessment = assessment
        self._draining = draining
        self._open = sum(part.count for part in assessment.parts if part.fits)
        self._targets: tuple[str, ...] | None = None
        self._waiting: tuple[str, ...] | None = None
        self._reasons: tuple[Reason, ...] | None = None

    def verdict(self, own: str) -> Verdict:
        """Return the verdict on a VM that runs on a node, "" where it runs nowhere."""
        # The lists need not be made where more are open than could be left out.
        if self._open - len(self._draining) - 1 > 1:
            return Verdict.MOVABLE
        targets = len(without(self.every_target(), own))
        return Verdict.of(targets, len(without(self._later(), own)))

    def every_target(self) -> tuple[str, ...]:
        """Return the names of the nodes that can take such a VM, sorted; its own among them."""
        if self._targets is None:
            self._targets = self._named(self._assessment.targets)
        return self._targets

    def every_possible(self) -> tuple[str, ...]:
        """Return the names of the nodes that can take such a VM now or later, sorted."""
        return tuple(sorted((*self.every_target(), *self._later())))

    def _later(self) -> tuple[str, ...]:
        if self._waiting is None:
            self._waiting = self._named(self._assessment.waiting)
        return self._waiting

    def targets(self, own: str) -> tuple[str, ...]:
        """Return the names of the nodes that a VM on a node can go to, sorted."""
        return without(self.every_target(), own)

    def reasons(self, own: str) -> tuple[Reason, ...]:
        """Return why the other nodes are out, by code in reading order."""
        if self._reasons is None:
            self._reasons = self._grouped("")
        if all(has(own, reason.nodes) is None for reason in self._reasons):
            return self._reasons
        return self._grouped(own)

    def _named(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if not self._draining:
            return names
        return tuple(name for name in names if name not in self._draining)

    def _grouped(self, own: str) -> tuple[Reason, ...]:
        nodes: dict[Code, list[str]] = {}
        missing: dict[Code, set[str]] = {}
        for part in self._assessment.parts:
            names = [node.name for node in part.in_any_order() if node.name != own]
            if part.fits:
                # A node that is drained is cordoned first.
                drained = [name for name in names if name in self._draining]
                if drained:
                    nodes.setdefault(Code.CORDONED, []).extend(drained)
                continue
            if not names:
                continue
            for code in dict.fromkeys(o.code for o in part.obstacles if o.kind is not Kind.RISK):
                nodes.setdefault(code, []).extend(names)
            for obstacle in part.obstacles:
                if obstacle.kind is not Kind.RISK:
                    missing.setdefault(obstacle.code, set()).update(obstacle.missing)
        return tuple(
            Reason(code.value, tuple(sorted(nodes[code])), tuple(sorted(missing.get(code, ()))))
            for code in Code
            if code in nodes
        )


def has(name: str, names: tuple[str, ...]) -> int | None:
    """Return where a name stands among sorted names, None where it does not."""
    at = bisect_left(names, name)
    return at if at < len(names) and names[at] == name else None


def without(names: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Return sorted names without one of them; the very same names where it is not among them."""
    at = has(own, names)
    return names if at is None else names[:at] + names[at + 1 :]


@dataclass(frozen=True, slots=True)
class VmForecast:
    """One VM: its verdict, and what that rests on.

    Attributes:
        vm: ``namespace/name``.
        node: Where it runs, "" where that is not known.
        cpu_model: The effective CPU model.
        prospects: Shared by VMs with equal demands; None where the VM itself is what is wrong.
        advice: What would help, in one sentence or more; "" where nothing is to be done.
    """

    vm: str
    node: str
    cpu_model: str
    verdict: Verdict
    prospects: Prospects | None = field(default=None, compare=False)
    advice: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the nodes that can take it now, sorted."""
        return self.prospects.targets(self.node) if self.prospects else ()

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the other nodes are out."""
        return self.prospects.reasons(self.node) if self.prospects else (Reason(BLOCKED, (), ()),)


@dataclass(frozen=True, slots=True)
class NodeForecast:
    """One node; ``staying`` are the VMs, sorted, that a drain would leave there."""

    name: str
    staying: tuple[str, ...]

    @property
    def drainable(self) -> bool:
        """Whether every VM there can go somewhere."""
        return not self.staying


@dataclass(frozen=True, slots=True)
class Forecast:
    """All VMs and all nodes, by name, and what a change that was asked about would change."""

    vms: tuple[VmForecast, ...]
    nodes: tuple[NodeForecast, ...]
    changes: tuple[Mapping[str, object], ...] = ()


def by_node(vms: Iterable[VmForecast], names: Iterable[str]) -> tuple[NodeForecast, ...]:
    """Say of each node which VMs would stay there."""
    staying: dict[str, list[str]] = {}
    for forecast in vms:
        if not forecast.verdict.leaves:
            staying.setdefault(forecast.node, []).append(forecast.vm)
    return tuple(NodeForecast(name, tuple(sorted(staying.get(name, ())))) for name in sorted(names))


def to_json(forecast: Forecast) -> dict[str, object]:
    """Return a forecast as the command prints it; equal lists may be one and the same object."""
    shared: dict[int, tuple[tuple[str, ...], list[str]]] = {}

    def listed(names: tuple[str, ...]) -> list[str]:
        # The names are kept beside the list, so that their id is not given to others meanwhile.
        return shared.setdefault(id(names), (names, list(names)))[1]

    def vm_json(vm: VmForecast) -> dict[str, object]:
        return {
            "vm": vm.vm,
            "node": vm.node,
            "cpuModel": vm.cpu_model,
            "verdict": vm.verdict.value,
            "targets": listed(vm.targets),
            "reasons": [
                {"code": code, "nodes": listed(nodes), "missing": listed(missing)}
                for code, nodes, missing in vm.reasons
            ],
            "advice": vm.advice,
        }

    return {
        "vms": [vm_json(vm) for vm in forecast.vms],
        "nodes": [
            {"name": node.name, "drainable": node.drainable, "staying": list(node.staying)}
            for node in forecast.nodes
        ],
        "changes": [dict(change) for change in forecast.changes],
    }

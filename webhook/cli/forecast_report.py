"""What ``forecast`` prints for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from webhook.cli.printing import Cell, Styled
from webhook.model.forecast import Verdict
from webhook.model.wording import listed, nodes_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cli.printing import Screen
    from webhook.model.forecast import Forecast, NodeForecast, VmForecast
    from webhook.model.snapshot import Snapshot

_STYLES = {
    Verdict.MOVABLE: "green",
    Verdict.ONE_NODE: "yellow",
    Verdict.WAITING: "yellow",
    Verdict.STUCK: "red",
    Verdict.BLOCKED: "red",
}
CODES = 4


def print_report(
    screen: Screen, found: Forecast, drained: frozenset[str], snapshot: Snapshot
) -> None:
    """Print the sums, the VMs (only those to move, where nodes are drained), and the nodes."""
    vms = [vm for vm in found.vms if not drained or vm.node in drained]
    where = f" on {nodes_named(sorted(drained))}" if drained else ""
    counts = Counter(vm.verdict for vm in vms)
    sums = ", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v])
    word = "VM" if len(vms) == 1 else "VMs"
    screen.line(f"{len(vms)} {word}{where}{': ' if sums else ''}{sums}", "bold")
    if blind := snapshot.blind():
        screen.line(f"note: {blind}")
    if vms:
        screen.line()
        screen.table(("VM", "NODE", "CPU MODEL", "VERDICT", "TARGETS", "WHY"), map(_vm_row, vms))
    _print_advice(screen, vms)
    nodes = [node for node in found.nodes if not drained or node.name in drained]
    if nodes:
        screen.line()
        screen.table(("NODE", "DRAINABLE", "STAYING"), map(_node_row, nodes))
    _print_changes(screen, found)


def _vm_row(vm: VmForecast) -> tuple[Cell, ...]:
    return (
        vm.vm,
        vm.node or "-",
        vm.cpu_model,
        Styled(vm.verdict.value, _STYLES[vm.verdict]),
        nodes_named(vm.targets) or "-",
        "" if vm.verdict is Verdict.MOVABLE else _why(vm),
    )


def _why(vm: VmForecast) -> str:
    if vm.verdict is Verdict.BLOCKED:
        return vm.advice
    told = [f"{r.code} ({nodes_named(r.nodes)})" for r in vm.reasons[:CODES]]
    rest = len(vm.reasons) - len(told)
    return ", ".join((*told, f"{rest} more") if rest else told)


def _print_advice(screen: Screen, vms: list[VmForecast]) -> None:
    """Print each advice once, with the VMs that it is for."""
    told: dict[str, list[str]] = {}
    for vm in vms:
        if vm.advice and vm.verdict is not Verdict.BLOCKED:
            told.setdefault(vm.advice, []).append(vm.vm)
    for text, names in told.items():
        screen.line()
        screen.line(f"{listed(names)}: {text}")


def _node_row(node: NodeForecast) -> tuple[Cell, ...]:
    answer = Styled("yes", "green") if node.drainable else Styled("no", "red")
    return node.name, answer, listed(node.staying)


def _print_changes(screen: Screen, found: Forecast) -> None:
    """Print what another model or more nodes would change: VMs first, then nodes that join."""
    models = [c for c in found.changes if "to" in c]
    gains = [c for c in found.changes if "newTargets" in c]
    nodes = [c for c in found.changes if "node" in c]
    if models:
        screen.line()
        screen.line(f"With CPU model {models[0]['to']} for the cluster, after a restart:", "bold")
        screen.table(("VM", "CPU MODEL NOW", "NOW", "THEN"), map(_model_row, models))
    if gains:
        screen.line()
        screen.line("With the nodes added:", "bold")
        screen.table(("VM", "NOW", "THEN", "NEW TARGETS"), map(_gain_row, gains))
    if nodes:
        screen.line()
        screen.table(
            ("NEW NODE", "HOST-MODEL GUESTS COME FROM", "CAN GO TO", "WOULD STRAND"),
            map(_new_node_row, nodes),
        )


def _model_row(change: Mapping[str, object]) -> tuple[Cell, ...]:
    then = str(change["verdictAfter"])
    after = Styled(then, _STYLES[Verdict(then)])
    starts = after if change["starts"] else Styled("cannot start", "red")
    return str(change["vm"]), str(change["from"]), str(change["verdictBefore"]), starts


def _gain_row(change: Mapping[str, object]) -> tuple[Cell, ...]:
    then = str(change["verdictAfter"])
    return (
        str(change["vm"]),
        str(change["verdictBefore"]),
        Styled(then, _STYLES[Verdict(then)]),
        _names(change["newTargets"]),
    )


def _new_node_row(change: Mapping[str, object]) -> tuple[Cell, ...]:
    return (
        str(change["node"]),
        _names(change["receivesFrom"]),
        _names(change["sendsTo"]),
        _names(change["wouldStrand"]),
    )


def _names(found: object) -> str:
    return listed([str(name) for name in found]) or "-" if isinstance(found, list) else "-"

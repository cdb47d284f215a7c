"""``baseline``: the CPU models that suit the whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.cli.exit_status import ALL_WELL, BAD_INPUT, SAYS_NO
from webhook.cli.loading import errors_json, facts_place, load_inventory, say_errors
from webhook.cli.options import Commands, add_command, add_inventory, add_output
from webhook.cli.printing import Cell, Screen, Styled, emit
from webhook.model.baseline import baseline, newest_common, to_json
from webhook.model.wording import nodes_named

if TYPE_CHECKING:
    import argparse

    from webhook.model.baseline import Baseline, ModelChoice


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "baseline",
        run,
        about="CPU models that the nodes have in common",
        description="List the named CPU models worth a choice, each with its generation and the "
        "share of nodes, cores and memory that can run it; the newest that all nodes\ncan run is "
        "marked. Below: which groups of nodes can exchange host-model guests.\n\n"
        "Exit status 1: no model runs on every node.",
        examples="%(prog)s --inventory cluster.yaml\n"
        "%(prog)s --inventory cluster.yaml -o json | jq -r '.common[]'",
    )
    add_inventory(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the baseline."""
    inventory = load_inventory(facts_place(args), only=("nodes",))
    nodes = list(inventory.snapshot.nodes.by_name.values())
    found = baseline(nodes)
    everywhere = newest_common(nodes)
    say_errors(inventory.errors)
    value = {**to_json(found), "errors": errors_json(inventory.errors)}
    emit(args.output, value, lambda screen: _table(screen, found, everywhere))
    if inventory.errors:
        return BAD_INPUT
    return ALL_WELL if everywhere is not None else SAYS_NO


def _table(screen: Screen, found: Baseline, everywhere: str | None) -> None:
    if not found.host_model_groups:
        screen.line("No node of the inventory runs KubeVirt (none has kubevirt.io/schedulable).")
        return
    if everywhere is not None:
        screen.line(f"The newest CPU model that every node can run: {everywhere}", "bold")
    else:
        screen.line("No CPU model runs on every node.", "bold")
        if found.common:
            screen.line(f"The newest of each vendor: {', '.join(found.common)}")
    screen.line()
    headers = ("MODEL", "VENDOR", "GENERATION", "NODES", "CORES", "MEMORY", "")
    screen.table(headers, [_row(choice, found) for choice in found.models])
    screen.line()
    screen.table(
        ("HOST MODEL", "NODES", "CAN RECEIVE GUESTS OF"),
        [
            (
                group.host_model or "(no label)",
                nodes_named(group.nodes),
                ", ".join(group.can_receive_from) or "none",
            )
            for group in found.host_model_groups
        ],
    )


def _row(choice: ModelChoice, found: Baseline) -> tuple[Cell, ...]:
    common = choice.model in found.common
    return (
        choice.model,
        choice.vendor or "-",
        "-" if choice.generation is None else str(choice.generation),
        f"{choice.nodes} ({choice.node_share:.0%})",
        f"{choice.core_share:.0%}",
        f"{choice.memory_share:.0%}",
        Styled("newest common", "green") if common else "",
    )

"""``forecast``: where every VM could go, and which nodes could be drained."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, BAD_INPUT, SAYS_NO
from webhook.cli.forecast_report import print_report
from webhook.cli.loading import (
    errors_json,
    facts_place,
    load_configuration,
    load_inventory,
    say_errors,
)
from webhook.cli.options import Commands, add_command, add_config, add_inventory, add_output
from webhook.cli.printing import emit
from webhook.cli.progress import Progress
from webhook.cluster.documents import DocumentError, read
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.model.forecast import Forecast, Verdict, to_json
from webhook.model.forecasting import forecast
from webhook.model.node import Node

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from webhook.model.snapshot import Snapshot

MOST_NAMES = 3
_HOPELESS = (Verdict.STUCK, Verdict.BLOCKED)


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "forecast",
        run,
        about="where every VM could go, and which nodes could be drained",
        description="Tell for every VM where it could go, for every node whether a drain would "
        "empty it, and what a change would change.\n\n"
        "Exit status 1: a VM is stuck or blocked; with --drain, one on the nodes drained.",
        examples="%(prog)s --inventory cluster.yaml\n"
        "%(prog)s --drain node1 --drain node2 --inventory cluster.yaml\n"
        "%(prog)s --cpu-model Skylake-Server --inventory cluster.yaml\n"
        "%(prog)s --add-node new-node.yaml --inventory cluster.yaml",
    )
    parser.add_argument(
        "--drain",
        metavar="NODE",
        action="append",
        default=[],
        help="a node that is to be emptied: it is no target; can be given several times",
    )
    parser.add_argument(
        "--cpu-model",
        metavar="NAME",
        help="also tell what this cluster-wide CPU model would change",
    )
    parser.add_argument(
        "--add-node",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="also tell what the nodes in this file would change; can be given several times",
    )
    add_inventory(parser)
    add_config(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Print the forecast."""
    configuration = load_configuration(args.config)
    inventory = load_inventory(facts_place(args), all_pods=configuration.facts.all_pods)
    snapshot = inventory.snapshot
    say_errors(inventory.errors)
    drained = _known_nodes(args.drain, snapshot)
    added = _new_nodes(args.add_node, snapshot)
    with Progress(f"judging {len(snapshot.vmis):,} VMs on {len(snapshot.nodes):,} nodes"):
        found = forecast(
            snapshot,
            passing_taints=configuration.passing_taints,
            now=datetime.now(UTC).timestamp(),
            draining=drained,
            cpu_model=args.cpu_model,
            added_nodes=added,
        )
    value = {**to_json(found), "errors": errors_json(inventory.errors)}
    emit(args.output, value, lambda screen: print_report(screen, found, drained, snapshot))
    if inventory.errors:
        return BAD_INPUT
    return SAYS_NO if _hopeless(found, drained) else ALL_WELL


def _hopeless(found: Forecast, drained: frozenset[str]) -> bool:
    asked = [vm for vm in found.vms if not drained or vm.node in drained]
    return any(vm.verdict in _HOPELESS for vm in asked)


def _known_nodes(names: Sequence[str], snapshot: Snapshot) -> frozenset[str]:
    known = snapshot.nodes.by_name
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=MOST_NAMES)
            hint = f"; there is {', '.join(near)}" if near else f"; it has {len(known)} nodes"
            raise CommandError(f"--drain {name}: no such node in the inventory{hint}")
    return frozenset(names)


def _new_nodes(paths: Sequence[Path], snapshot: Snapshot) -> tuple[Node, ...]:
    found: dict[str, Node] = {}
    for document in read(paths):
        if isinstance(document, DocumentError):
            raise CommandError(f"--add-node {document}")
        at = f"--add-node {document.label}"
        try:
            kind, node = fields.text(document.obj, "kind"), Node.from_object(document.obj)
        except InvalidObject as error:
            raise CommandError(f"{at}: {error}") from error
        if kind != "Node" or not node.name:
            raise CommandError(f"{at}: a Node with a name is wanted, not {kind or 'no kind'}")
        if node.name in snapshot.nodes.by_name:
            raise CommandError(f"{at}: node {node.name} is in the inventory already")
        found[node.name] = node
    if paths and not found:
        raise CommandError(f"--add-node {paths[0]}: holds no node")
    return tuple(found.values())

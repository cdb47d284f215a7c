"""``check-config FILE``: what is wrong or questionable in a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.deadlines import compare_with_kubevirt
from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, BAD_INPUT
from webhook.cli.loading import facts_place, load_inventory, read_text, say_errors
from webhook.cli.options import Commands, add_command, add_inventory, add_output
from webhook.cli.printing import Screen, Styled, emit
from webhook.policy import loading
from webhook.policy.checking import check
from webhook.policy.findings import ConfigurationError, Finding, Level, report

if TYPE_CHECKING:
    import argparse

    from webhook.cluster.inventory import Inventory

_STYLES = {Level.ERROR: "red", Level.WARNING: "yellow", Level.INFO: "dim"}


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "check-config",
        run,
        about="check a configuration file",
        description="Check a configuration file: errors by line and key, and settings that may "
        "not do what was meant. With an inventory, the guard's deadline is\ncompared with "
        "KubeVirt's own limit.\n\n"
        "Exit status: 0 valid, 2 not valid.",
        examples="%(prog)s guard.yaml\n%(prog)s guard.yaml --inventory cluster.yaml -o json",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="the configuration")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the same as FILE")
    add_inventory(parser, what="compare with a cluster", by_default=False)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Check the configuration and print the findings."""
    if args.file is not None and args.config is not None:
        raise CommandError("the configuration is named twice, as FILE and with --config")
    path: Path | None = args.file or args.config
    # A cluster that is merely at hand is not asked: the file may be meant for another.
    compares = args.inventory or args.kubeconfig is not None or args.context is not None
    if path is None and not compares:
        raise CommandError("name the configuration file to check")
    inventory = load_inventory(facts_place(args)) if compares else None
    findings = _findings(path, inventory)
    if inventory is not None:
        say_errors(inventory.errors)
    value = report(findings)
    where = str(path) if path is not None else "the defaults"
    emit(args.output, value, lambda screen: _table(screen, where, findings))
    broken = not value["valid"] or (inventory is not None and inventory.errors)
    return BAD_INPUT if broken else ALL_WELL


def _findings(path: Path | None, inventory: Inventory | None) -> list[Finding]:
    text = read_text(path, "configuration") if path is not None else ""
    try:
        configuration = loading.load(text, str(path))
    except ConfigurationError as error:
        return list(error.findings)
    found = check(configuration)
    if inventory is not None:
        found += compare_with_kubevirt(configuration, inventory.snapshot)
    return found


def _table(screen: Screen, where: str, findings: list[Finding]) -> None:
    errors = sum(finding.level is Level.ERROR for finding in findings)
    others = len(findings) - errors
    counted = f", {others} finding{'s' if others != 1 else ''}" if others else ""
    if errors:
        screen.line(f"{where}: not valid, {errors} error{'s' if errors != 1 else ''}{counted}")
    else:
        screen.line(f"{where}: valid{counted}")
    if findings:
        screen.line()
        screen.table(
            ("LEVEL", "SETTING", "MESSAGE"),
            [(Styled(f.level.value, _STYLES[f.level]), f.path or "-", f.message) for f in findings],
        )

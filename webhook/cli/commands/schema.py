"""``schema NAME``: the JSON Schema of an output, or of the configuration."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from webhook.cli.exit_status import ALL_WELL
from webhook.cli.options import Commands, add_command
from webhook.cli.printing import print_json
from webhook.policy.schema import configuration_schema

if TYPE_CHECKING:
    import argparse

OUTPUTS = (
    "review",
    "candidates",
    "forecast",
    "baseline",
    "check-config",
    "certs-issue",
    "certs-show",
    "certs-verify",
    "audit-list",
    "audit-show",
    "audit-stats",
)
CONFIGURATION = "configuration"


def output_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what a command prints with ``-o json``."""
    file = resources.files("webhook.cli") / "schemas" / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "schema",
        run,
        about="print the JSON Schema of an output or of the configuration",
        description="Print the JSON Schema (draft 2020-12) of what a command prints with -o json "
        "or -o yaml, or of the configuration file.",
        examples="%(prog)s review\n%(prog)s configuration > configuration.schema.json",
    )
    names = (*OUTPUTS, CONFIGURATION)
    parser.add_argument("name", metavar="NAME", choices=names, help=", ".join(names))


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print_json(configuration_schema() if args.name == CONFIGURATION else output_schema(args.name))
    return ALL_WELL

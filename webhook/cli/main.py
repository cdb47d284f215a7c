# PYTHON_ARGCOMPLETE_OK
"""The program ``migration-guard``, also found by kubectl as ``kubectl migration_guard``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import argcomplete

from webhook.audit.errors import AuditError
from webhook.cli.commands import (
    audit,
    baseline,
    candidates,
    certs,
    check_config,
    completion,
    forecast,
    review,
    schema,
    serve,
)
from webhook.cli.errors import CommandError
from webhook.cli.exit_status import BAD_INPUT, INTERRUPTED, OWN_FAILURE, PIPE_CLOSED
from webhook.cli.printing import say
from webhook.policy.findings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

PLUGIN = "kubectl-migration_guard"
COMMANDS = (
    review,
    candidates,
    forecast,
    baseline,
    serve,
    check_config,
    audit,
    certs,
    schema,
    completion,
)
EPILOG = """\
exit status:
  0  all allowed; somewhere to go; nothing stuck
  1  something is refused, stuck or blocked, there is nowhere to go, or no common model
  2  bad input or usage, named on stderr or under "errors"; it wins over 1

first steps:
  kubectl get nodes,vms,vmis,vmims,pods,kubevirt -A -o yaml > cluster.yaml
  %(prog)s forecast --inventory cluster.yaml
  %(prog)s candidates default/my-vm --inventory cluster.yaml
"""


def program_name(called: str) -> str:
    """Return the name to show for the name the program was called by."""
    return "kubectl migration_guard" if Path(called).name == PLUGIN else "migration-guard"


def build_parser(name: str = "migration-guard") -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=name,
        description="Which nodes can take a virtual machine, and if not, why not: as an admission "
        "webhook for KubeVirt, and offline over files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"migration-guard {_version()}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = build_parser(program_name(sys.argv[0]))
    argcomplete.autocomplete(parser)
    try:
        args = parser.parse_args(argv)
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (AuditError, CommandError, ConfigurationError) as error:
        for line in str(error).splitlines():
            say(line)
        return BAD_INPUT
    except Exception as error:
        say(_own_failure(error))
        return OWN_FAILURE
    return status


def _own_failure(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"a fault of migration-guard itself: {type(error).__name__}: {error}{at}"


def _drop_output() -> None:
    """Let Python's own flush at the end find somewhere to write to."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    try:
        return metadata.version("migration-guard")
    except metadata.PackageNotFoundError:
        return "unknown"

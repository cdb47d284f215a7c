"""``completion SHELL``: the script that completes this program's command line in a shell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from argcomplete.shell_integration import shellcode

from webhook.cli.exit_status import ALL_WELL
from webhook.cli.options import Commands, add_command

if TYPE_CHECKING:
    import argparse

PROGRAMS = ["migration-guard", "kubectl-migration_guard"]
SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "completion",
        run,
        about="print the completion script for a shell",
        description="Print a script after which the shell completes commands, options and files.",
        examples="source <(%(prog)s bash)\n"
        "source <(%(prog)s zsh)      # after: autoload -U compinit && compinit\n"
        "%(prog)s fish | source",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    script: str = shellcode(PROGRAMS, shell=args.shell)
    sys.stdout.write(script.rstrip("\n") + "\n")
    return ALL_WELL

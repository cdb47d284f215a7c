"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from webhook.audit.record import read_moment
from webhook.cli.printing import Form

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from enum import StrEnum

# A string, because argparse's own class cannot be subscripted when the program runs.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = "Callable[[argparse.Namespace], int]"


def add_command(
    commands: Commands, name: str, run: Run, *, about: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: The program's commands.
        name: Its name.
        run: What it does; returns the exit status.
        about: A few words, for the list of commands.
        description: What it does, in full.
        examples: Lines for the end of its help; ``%(prog)s`` is the command.
    """
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser = commands.add_parser(
        name,
        help=about,
        description=description,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Commands, name: str, *, about: str, description: str) -> Commands:
    """Add a command that has commands of its own; return what takes them.

    Args:
        commands: The program's commands.
        name: Its name.
        about: A few words, for the list of commands.
        description: What its commands are about.
    """
    parser = commands.add_parser(name, help=about, description=description, allow_abbrev=False)
    return parser.add_subparsers(
        title="commands", metavar="COMMAND", dest=f"{name}_command", required=True
    )


def add_inventory(
    parser: argparse.ArgumentParser,
    *,
    what: str = "the cluster's facts",
    by_default: bool = True,
) -> None:
    """Add where facts come from: ``--inventory``, ``--kubeconfig`` and ``--context``.

    Args:
        parser: The command's.
        what: What they are for.
        by_default: Whether the cluster at hand is asked where none of them is given.
    """
    usual = " (default: $KUBECONFIG, ~/.kube/config, or the service account of the pod)"
    parser.add_argument(
        "--inventory",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help=f"{what} from files: a file or folder of YAML or JSON as kubectl prints it, - for "
        "stdin; can be given several times",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        type=Path,
        help=f"{what} from a live cluster{usual if by_default else ''}",
    )
    parser.add_argument(
        "--context", metavar="NAME", help="a context of the kubeconfig (default: the current one)"
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the guard's configuration; without it every setting has its default",
    )


def count(text: str) -> int:
    """Return a whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def seconds(text: str) -> float:
    """Return a length of time in seconds, from a tenth of one to an hour.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    # Not a comparison the other way round, which "nan" would pass.
    if not 0.1 <= length <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return length


def add_output(parser: argparse.ArgumentParser, forms: type[StrEnum] = Form) -> None:
    """Add ``-o``.

    Args:
        parser: The command's.
        forms: What it takes; the first is the default.
    """
    *most, last = forms
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORM",
        type=forms,
        choices=list(forms),
        default=most[0],
        help=f"{', '.join(most)} or {last} (default: {most[0]})",
    )


def moment(text: str) -> datetime:
    """Read a time in RFC 3339.

    Raises:
        ArgumentTypeError: It is none, or has no time zone.
    """
    try:
        return read_moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time in RFC 3339, such as 2026-03-01T12:00:00Z"
        ) from None

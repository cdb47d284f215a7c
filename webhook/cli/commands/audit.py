"""``audit list|show|export|stats``: what the webhook kept of its decisions."""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING

from webhook.audit.answers import decision_json, escaped_json, list_json, stats_json
from webhook.audit.importance import IMPORTANCE
from webhook.audit.record import microseconds, rfc3339
from webhook.cli.audit_options import add_audit_place, audit_database
from webhook.cli.audit_report import (
    HEADERS,
    csv_lines,
    line,
    print_decision,
    print_stats,
    rows,
)
from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, SAYS_NO
from webhook.cli.options import Commands, add_command, add_group, add_output, count, moment
from webhook.cli.printing import Form, Screen, emit, say
from webhook.policy.rules import Rule
from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from webhook.audit.following import Follower
    from webhook.audit.queries import Reader
    from webhook.audit.results import Cursor, Filter, Found, Page

PAGE = 50
TOP = 20
FOLLOW_SECONDS = 1.0


class ListForm(StrEnum):
    """The forms of a list (``-o``)."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"
    CSV = "csv"


def add(commands: Commands) -> None:
    """Describe the command and its own commands to the parser."""
    group = add_group(
        commands,
        "audit",
        about="what was refused, warned about, changed or overridden, and why",
        description="Read what a server that runs with --audit-dir kept of its decisions.",
    )
    _add_list(group)
    _add_show(group)
    _add_export(group)
    _add_stats(group)


def _add_list(group: Commands) -> None:
    parser = add_command(
        group,
        "list",
        list_records,
        about="the newest records that meet all of some conditions",
        description="List records, newest first. A decision that was repeated within an hour is "
        "one record with a count.",
        examples="%(prog)s --audit-dir /var/lib/migration-guard --outcome refused\n"
        "%(prog)s --audit-dir /var/lib/migration-guard --vm shop/web --since 2026-03-01T00:00:00Z"
        "\n%(prog)s --audit-dir /var/lib/migration-guard -f",
    )
    _add_filter(parser)
    parser.add_argument(
        "--limit", metavar="NUMBER", type=count, default=PAGE, help=f"at most so many ({PAGE})"
    )
    parser.add_argument(
        "--after", metavar="PLACE", help="go on behind a place that an earlier list named"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on printing what comes, until Ctrl-C"
    )
    add_audit_place(parser)
    add_output(parser, ListForm)


def _add_show(group: Commands) -> None:
    parser = add_command(
        group,
        "show",
        show,
        about="everything about one decision",
        description="Tell all that was kept of a decision, by the id that stands in the message, "
        "the log and the annotation. Every id that was given is found, also one of a repetition. "
        "With\n--audit-dir, what still waits for the database is found too.\n\n"
        "Exit status 1: nothing is known of it.",
        examples="%(prog)s 019ac0de-0000-7000-8000-000000000001 "
        "--audit-dir /var/lib/migration-guard",
    )
    parser.add_argument("decision", metavar="ID", help="the decision id")
    add_audit_place(parser)
    add_output(parser)


def _add_export(group: Commands) -> None:
    parser = add_command(
        group,
        "export",
        export,
        about="all records, as JSON Lines or CSV",
        description="Print every record, newest first, one a line.",
        examples="%(prog)s --audit-dir /var/lib/migration-guard > audit.jsonl\n"
        "%(prog)s --audit-dir /var/lib/migration-guard --csv > audit.csv",
    )
    _add_filter(parser)
    parser.add_argument("--csv", action="store_true", help="as CSV, with the main columns only")
    add_audit_place(parser)


def _add_stats(group: Commands) -> None:
    parser = add_command(
        group,
        "stats",
        stats,
        about="sums per rule, per VM and per node label that was missing",
        description="Tell what was decided most, over whole days in UTC: which rule, which VM, and "
        "which missing node label blocks most.",
        examples="%(prog)s --audit-dir /var/lib/migration-guard --since 2026-03-01T00:00:00Z",
    )
    _add_times(parser)
    parser.add_argument(
        "--top", metavar="NUMBER", type=count, default=TOP, help=f"VMs and labels to list ({TOP})"
    )
    add_audit_place(parser)
    add_output(parser)


def _add_times(parser: argparse.ArgumentParser) -> None:
    for name, what in (("--since", "from"), ("--until", "up to")):
        parser.add_argument(
            name, metavar="TIME", type=moment, help=f"{what} this time, in RFC 3339"
        )


def _add_filter(parser: argparse.ArgumentParser) -> None:
    _add_times(parser)
    *others, last = IMPORTANCE
    parser.add_argument(
        "--outcome",
        metavar="OUTCOME",
        type=Outcome,
        choices=list(Outcome),
        action="append",
        default=[],
        help=f"{', '.join(others)} or {last}; can be given several times",
    )
    parser.add_argument(
        "--rule",
        metavar="RULE",
        choices=[rule.value for rule in Rule],
        default="",
        help="the rule that led to the outcome",
    )
    parser.add_argument("-n", "--namespace", metavar="NAMESPACE", default="", help="the namespace")
    parser.add_argument("--vm", metavar="[NAMESPACE/]VM", default="", help="the VM it is about")
    parser.add_argument("--user", metavar="USER", default="", help="who asked")
    parser.add_argument(
        "--node", metavar="NODE", default="", help="the node it ran on, or was asked to go to"
    )
    parser.add_argument(
        "--text", metavar="TEXT", default="", help="a text that stands anywhere in the record"
    )


def list_records(args: argparse.Namespace) -> int:
    """List records; follow them if asked."""
    from webhook.audit.following import Follower

    wanted = _filter(args)
    form: ListForm = args.output
    if args.follow and form in (ListForm.JSON, ListForm.YAML):
        raise CommandError(f"-f prints line by line: with it -o {form} has no end; use -o jsonl")
    reader = _reader(args)
    try:
        # Before the first page, so that nothing that comes meanwhile is missed.
        follower = Follower(reader, wanted) if args.follow else None
        page = reader.first(wanted, args.limit, _after(args.after))
        _print_page(form, page, follows=args.follow)
        if page.behind is not None and len(page.found) < args.limit:
            say(
                f"nothing before {rfc3339(page.behind.last_time)} was looked through, to end in "
                f"time; go on with --after {page.behind}, or ask for less with --since and others"
            )
        if follower is not None:
            follower.note(page.found)
            _follow(follower, form)
    finally:
        reader.close()
    return ALL_WELL


def _print_page(form: ListForm, page: Page, *, follows: bool) -> None:
    if form in (ListForm.CSV, ListForm.JSONL) or follows:
        ordered = page.found[::-1] if follows else page.found
        if form is ListForm.CSV:
            _write(csv_lines(ordered))
        else:
            for found in ordered:
                _print_line(form, found)
        return
    value = list_json(page)

    def table(screen: Screen) -> None:
        screen.table(HEADERS, rows(page.found))
        if page.behind is not None:
            screen.line()
            screen.line(f"more: --after {page.behind}", "dim")

    emit(Form(form.value), value, table)


def _follow(follower: Follower, form: ListForm) -> None:
    pause = threading.Event()
    while True:
        sys.stdout.flush()
        pause.wait(FOLLOW_SECONDS)
        for found in follower.news():
            if form is ListForm.CSV:
                _write(csv_lines((found,), header=False))
            else:
                _print_line(form, found)


def _print_line(form: ListForm, found: Found) -> None:
    if form is ListForm.JSONL:
        # Escaped, so that a line is harmless on a terminal too.
        sys.stdout.write(escaped_json(found.to_json()) + "\n")
    else:
        Screen().line(line(found))


def _write(lines: Iterable[str]) -> None:
    for text in lines:
        sys.stdout.write(text)


def show(args: argparse.Namespace) -> int:
    """Tell all about one decision."""
    with ExitStack() as stack:

        def opened() -> Reader:
            reader = _reader(args)
            stack.callback(reader.close)
            return reader

        value = decision_json(opened, args.audit_dir, args.decision)
    items = value["items"]
    if not items:
        say(f"no decision {args.decision} is in the audit; it may be older than what is kept")

    def words(screen: Screen) -> None:
        print_decision(screen, items, waiting=value["waiting"])

    emit(args.output, value, words)
    return ALL_WELL if items else SAYS_NO


def export(args: argparse.Namespace) -> int:
    """Print every record."""
    wanted = _filter(args)
    reader = _reader(args)
    try:
        if args.csv:
            _write(csv_lines(reader.all(wanted)))
        else:
            for found in reader.all(wanted):
                _print_line(ListForm.JSONL, found)
    finally:
        reader.close()
    return ALL_WELL


def stats(args: argparse.Namespace) -> int:
    """Print sums."""
    reader = _reader(args)
    try:
        found = reader.stats(_time(args.since), _time(args.until), args.top)
    finally:
        reader.close()
    emit(args.output, stats_json(found), lambda screen: print_stats(screen, found))
    return ALL_WELL


def _reader(args: argparse.Namespace) -> Reader:
    from webhook.audit.database import sqlite_url
    from webhook.audit.queries import Reader

    url = audit_database(args)
    if url is None and args.audit_dir is not None:
        url = sqlite_url(args.audit_dir)
    if url is None:
        raise CommandError(
            "where is the audit? Name its folder with --audit-dir, or its database with "
            "--audit-database"
        )
    return Reader(url)


def _filter(args: argparse.Namespace) -> Filter:
    from webhook.audit.results import Filter

    vm = args.vm
    if vm and "/" not in vm:
        vm = f"{args.namespace or 'default'}/{vm}"
    return Filter(
        since=_time(args.since),
        until=_time(args.until),
        outcomes=tuple(outcome.value for outcome in args.outcome),
        rule=args.rule,
        namespace=args.namespace,
        vm=vm,
        user=args.user,
        node=args.node,
        text=args.text,
    )


def _after(text: str | None) -> Cursor | None:
    from webhook.audit.results import Cursor

    if text is None:
        return None
    try:
        return Cursor.read(text)
    except ValueError as error:
        raise CommandError(f"--after: {error}") from None


def _time(moment: datetime | None) -> int | None:
    return microseconds(moment) if moment is not None else None

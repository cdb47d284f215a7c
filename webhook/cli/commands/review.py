"""``review -f FILE…``: decide offline what the server would decide."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, BAD_INPUT, SAYS_NO
from webhook.cli.ids import new_id
from webhook.cli.loading import errors_json, facts_place, load_configuration, load_inventory
from webhook.cli.options import (
    Commands,
    add_command,
    add_config,
    add_inventory,
    add_output,
    moment,
)
from webhook.cli.printing import emit
from webhook.cli.review_documents import Submission, in_order, joined, submissions
from webhook.cli.review_report import Reviewed, print_report, to_json
from webhook.cluster.documents import STANDARD_INPUT, DocumentError
from webhook.model.fields import InvalidObject
from webhook.review.deciding import both_passes
from webhook.review.memory import RefusalMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration

OPERATIONS = ("CREATE", "UPDATE", "DELETE")


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "review",
        run,
        about="decide about manifests or AdmissionReviews",
        description="Decide as the webhook would, about AdmissionReviews or plain manifests "
        "(VM, VMI, VMIM, Pod, Eviction, KubeVirt):\nthe mutating pass, then the validating pass "
        "over its result. VMs, VMIs and VMIMs of the call join the inventory.\n\n"
        "Exit status 1: something is refused.",
        examples="%(prog)s -f migration.yaml --inventory cluster.yaml\n"
        "kubectl get vm web -o yaml | %(prog)s -f - --inventory cluster.yaml\n"
        "%(prog)s -f new.yaml --old old.yaml --as jane --inventory cluster.yaml -o json",
    )
    parser.add_argument(
        "-f",
        "--filename",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="files or folders to review, - for stdin",
    )
    parser.add_argument(
        "--operation",
        metavar="OPERATION",
        choices=OPERATIONS,
        help="what a plain manifest asks for: CREATE, UPDATE or DELETE (default: UPDATE where "
        "--old has the object, else CREATE)",
    )
    parser.add_argument(
        "--old",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="the objects as they are now, found by kind, namespace and name",
    )
    parser.add_argument("--as", dest="user", metavar="USER", default="", help="who asks")
    parser.add_argument(
        "--as-group",
        dest="groups",
        metavar="GROUP",
        action="append",
        default=[],
        help="a group of who asks; can be given several times",
    )
    parser.add_argument(
        "--now",
        metavar="TIME",
        type=moment,
        help="the time to decide at, in RFC 3339 (default: now)",
    )
    add_inventory(parser)
    add_config(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Review every document and print what was decided."""
    _one_reader_of_stdin(args.filename, args.old, args.inventory)
    configuration = load_configuration(args.config)
    asked = submissions(
        args.filename,
        args.old,
        operation=args.operation,
        username=args.user,
        groups=tuple(args.groups),
    )
    before, after = joined(asked.documents)
    inventory = load_inventory(
        facts_place(args), all_pods=configuration.facts.all_pods, before=before, after=after
    )
    now = args.now or datetime.now(UTC)
    reviewed, broken = _decide(asked.reviews, inventory.snapshot, configuration, now)
    errors = in_order(inventory.errors, (*asked.errors, *broken))
    if not reviewed and not errors:
        named = ", ".join(str(path) for path in args.filename)
        raise CommandError(f"nothing to review: {named} holds no object")
    value = {"items": [to_json(one) for one in reviewed], "errors": errors_json(errors)}
    emit(args.output, value, lambda screen: print_report(screen, reviewed, errors))
    if errors:
        return BAD_INPUT
    return ALL_WELL if all(one.decision.allowed for one in reviewed) else SAYS_NO


def _one_reader_of_stdin(*lists: Sequence[Path]) -> None:
    if sum(str(path) == STANDARD_INPUT for paths in lists for path in paths) > 1:
        raise CommandError("stdin (-) can be read once only; it is named several times")


def _decide(
    asked: Sequence[Submission],
    snapshot: Snapshot,
    configuration: Configuration,
    now: datetime,
) -> tuple[list[Reviewed], list[DocumentError]]:
    reviewed: list[Reviewed] = []
    broken: list[DocumentError] = []
    # As one replica of the server: a refusal that repeats keeps its id.
    memory = RefusalMemory()
    for one in asked:
        try:
            decision, _ = both_passes(one.review, snapshot, configuration, now, new_id, memory)
        except InvalidObject as error:
            broken.append(DocumentError(one.label, f"{one.review.kind}: {error}"))
        else:
            reviewed.append(Reviewed(one.label, one.review, decision))
    return reviewed, broken

"""What is asked of the audit, in JSON: as the command prints it, and as the API answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from webhook.audit.errors import AuditError
from webhook.audit.folder import waiting_records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from webhook.audit.queries import Reader
    from webhook.audit.record import Record
    from webhook.audit.results import Page, Stats, Sum


def list_json(page: Page) -> dict[str, Any]:
    """Return a page of a list as ``schema audit-list`` describes it."""
    return {
        "items": [found.to_json() for found in page.found],
        "next": str(page.behind) if page.behind is not None else None,
    }


def escaped_json(value: Mapping[str, Any]) -> str:
    """Return JSON of ASCII that can be printed, so that it is harmless on a terminal too."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def decision_json(
    opened: Callable[[], Reader], folder: Path | None, decision: str
) -> dict[str, Any]:
    """Return all that is known of a decision as ``schema audit-show`` describes it.

    Args:
        opened: Opens the database.
        folder: A spool, where it may still wait for the database; None for none.
        decision: The decision id.

    Raises:
        AuditError: The spool cannot be read, or the database cannot and the spool does not hold it.
    """
    failure: AuditError | None = None
    items: list[dict[str, Any]] = []
    try:
        items = [found.to_json() for found in opened().by_decision(decision)]
    except AuditError as error:
        # While the database is away, records wait in the spool.
        failure = error
    waiting = False
    if not items and folder is not None:
        items = [_waiting(*found) for found in waiting_records(folder, decision)]
        waiting = bool(items)
    if failure is not None and not items:
        raise failure
    return {"decision": decision, "waiting": waiting, "items": items}


def _waiting(replica: str, sequence: int, record: Record) -> dict[str, Any]:
    document = record.to_json()
    times = {"firstTime": document["time"], "lastTime": document["time"]}
    return {**times, "count": 1, "replica": replica, "sequence": sequence, **document}


def stats_json(stats: Stats) -> dict[str, Any]:
    """Return sums as ``schema audit-stats`` describes them."""
    return {
        "since": stats.since or None,
        "until": stats.until or None,
        "rules": [_sum(one, "rule") for one in stats.rules],
        "vms": [_sum(one, "vm") for one in stats.vms],
        "labels": [_sum(one, "label") for one in stats.labels],
    }


def _sum(one: Sum, name: str) -> dict[str, Any]:
    return {
        name: one.value,
        "decisions": one.decisions,
        "records": one.records,
        "outcomes": dict(one.outcomes),
    }

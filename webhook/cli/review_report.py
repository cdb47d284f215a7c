"""What ``review`` prints."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.cli.nodes import nodes_json
from webhook.cli.printing import Styled
from webhook.review.decision import Decision, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.cli.printing import Screen
    from webhook.cluster.documents import DocumentError
    from webhook.review.admission import Review

_STYLES = {
    Outcome.REFUSED: "bold red",
    Outcome.OVERRIDDEN: "yellow",
    Outcome.EXEMPT: "yellow",
    Outcome.BLIND: "yellow",
    Outcome.WARNED: "yellow",
    Outcome.NOT_REVIEWED: "dim",
}


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A document and what was decided about it."""

    document: str
    review: Review
    decision: Decision


def to_json(one: Reviewed) -> dict[str, Any]:
    """Return an item as ``schema review`` describes it."""
    review, decision = one.review, one.decision
    return {
        "document": one.document,
        "operation": review.operation,
        "kind": review.kind,
        "namespace": review.namespace,
        "name": review.name,
        "user": review.username,
        "origin": decision.origin,
        "allowed": decision.allowed,
        "code": decision.code,
        "outcome": decision.outcome.value,
        "message": decision.message,
        "warnings": list(decision.warnings),
        "patch": [dict(operation) for operation in decision.patch],
        "rules": [
            {"rule": r.rule.value, "mode": r.mode.value, "outcome": r.outcome.value}
            for r in decision.rules
        ],
        "nodes": nodes_json(decision.assessment) if decision.assessment is not None else [],
        "decision": decision.decision_id,
    }


def print_report(
    screen: Screen, reviewed: Sequence[Reviewed], errors: Sequence[DocumentError]
) -> None:
    """Print each document with its outcome, then what could not be read, then the sums."""
    for one in reviewed:
        _print_one(screen, one)
        screen.line()
    for error in errors:
        screen.parts((Styled("error: ", "bold red"), str(error)))
    if errors:
        screen.line()
    counts = Counter(one.decision.outcome for one in reviewed)
    sums = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
    if errors:
        sums.append(f"{len(errors)} with errors")
    screen.line(", ".join(sums))


def _print_one(screen: Screen, one: Reviewed) -> None:
    review, decision = one.review, one.decision
    outcome = decision.outcome
    name = "/".join(part for part in (review.namespace, review.name) if part)
    screen.parts(
        (
            Styled(f"{outcome.value}: ", _STYLES.get(outcome, "green")),
            Styled(f"{review.operation} {review.kind} {name}", "bold"),
            Styled(f"  {one.document}", "dim"),
        )
    )
    if (decision.message and not decision.allowed) or outcome is Outcome.AUDITED:
        screen.line(decision.message, indent=2)
    for text in decision.warnings:
        screen.parts((Styled("Warning: ", "yellow"), text), indent=2)
    for operation in decision.patch:
        if operation["op"] != "test":
            value = json.dumps(operation["value"], ensure_ascii=False)
            screen.line(f"{operation['op']} {operation['path']}: {value}", indent=2)
    rules = [f"{r.rule.value} {r.outcome.value} ({r.mode.value})" for r in decision.rules]
    if rules:
        screen.line(f"rules: {', '.join(dict.fromkeys(rules))}", "dim", indent=2)

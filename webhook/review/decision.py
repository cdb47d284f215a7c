"""What came of a review."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from webhook.model.placement import Assessment
    from webhook.model.snapshot import Snapshot
    from webhook.policy.rules import Mode, Rule

ALLOWED_CODE = 200
REFUSED_CODE = 403
TRY_AGAIN_CODE = 429


class Outcome(StrEnum):
    """What came of a rule or of a whole review; of several the first in this order holds.

    Two come of no review: ``aborted`` is a migration that was stopped as it ran, and
    ``not-aborted`` takes that back where something came between.
    """

    REFUSED = "refused"
    ABORTED = "aborted"
    NOT_ABORTED = "not-aborted"
    OVERRIDDEN = "overridden"
    EXEMPT = "exempt"
    BLIND = "blind"
    WARNED = "warned"
    AUDITED = "audited"
    CHANGED = "changed"
    LEFT_TO_KUBEVIRT = "left-to-kubevirt"
    ALLOWED = "allowed"
    NOT_REVIEWED = "not-reviewed"


class Blind(StrEnum):
    """Why a review was answered without a decision."""

    LATE = "late"
    STALE_FACTS = "stale-facts"
    NO_NODES = "no-nodes"
    UNREADABLE = "unreadable"


_RANK = {outcome: rank for rank, outcome in enumerate(Outcome)}


def foremost(outcomes: Iterable[Outcome], default: Outcome = Outcome.NOT_REVIEWED) -> Outcome:
    """Return the outcome that names the whole."""
    return min(outcomes, key=_RANK.__getitem__, default=default)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule made of a review; ``detail`` in words, for the log."""

    rule: Rule
    mode: Mode
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a review, and how it came about.

    Attributes:
        message: For the user where it is refused; else the foremost finding in full.
        warnings: Each at most 256 characters, in one line.
        patch: JSON Patch operations; empty where nothing changes.
        assessment: What stands in the way on which node, where nodes were judged.
        origin: Who started the migration: user, evacuation or workload-update; "" for the rest.
        via: "virtctl" or "harvester" where their service account asked for a user.
        overridden_by: Who wrote the override that counted.
        override_reason: What they wrote.
        refusal_follows: In the mutating pass: the validating pass will refuse the object, so
            nothing of this will be stored.
        blind: Why nothing was judged; None where it was.
        try_again: A no means that a later try may be allowed, as KubeVirt says it of evictions.
    """

    allowed: bool
    outcome: Outcome
    decision_id: str
    message: str = ""
    warnings: tuple[str, ...] = ()
    patch: tuple[Mapping[str, Any], ...] = ()
    rules: tuple[RuleResult, ...] = ()
    assessment: Assessment | None = None
    origin: str = ""
    via: str = ""
    overridden_by: str = ""
    override_reason: str = ""
    refusal_follows: bool = False
    blind: Blind | None = None
    try_again: bool = False

    @property
    def code(self) -> int:
        """The HTTP status code in the answer's status: 403 or 429 for a no, else 200."""
        if self.allowed:
            return ALLOWED_CODE
        return TRY_AGAIN_CODE if self.try_again else REFUSED_CODE


@dataclass(frozen=True, slots=True)
class Circumstances:
    """In which pass, with which facts and when a decision was made.

    Attributes:
        now: The time, aware.
        seconds: How long it took.
        facts_age: Seconds since the last sign of life of the facts; None for files.
    """

    mutating: bool
    facts: Snapshot
    now: datetime
    seconds: float = 0.0
    facts_age: float | None = None

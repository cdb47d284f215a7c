"""Which decisions are kept, and which of them give way to others where room is short."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from webhook.review.decision import Outcome


class Importance(IntEnum):
    """How much a record matters; where room is short the lowest goes first.

    Attributes:
        NOTE: Something was changed, or found in mode audit.
        WARNING: Somebody was warned.
        EXCEPTION: A rule did not hold: overridden, exempt, or nothing was known.
        REFUSAL: Something was refused, or a migration aborted. It is on disk before the answer is
            given, or the migration deleted.
    """

    NOTE = 0
    WARNING = 1
    EXCEPTION = 2
    REFUSAL = 3


IMPORTANCE: Mapping[Outcome, Importance] = {
    Outcome.REFUSED: Importance.REFUSAL,
    Outcome.ABORTED: Importance.REFUSAL,
    Outcome.NOT_ABORTED: Importance.REFUSAL,
    Outcome.OVERRIDDEN: Importance.EXCEPTION,
    Outcome.EXEMPT: Importance.EXCEPTION,
    Outcome.BLIND: Importance.EXCEPTION,
    Outcome.WARNED: Importance.WARNING,
    Outcome.AUDITED: Importance.NOTE,
    Outcome.CHANGED: Importance.NOTE,
}
"""The outcomes that are kept; what is not here leaves no trace but its count in the metrics."""

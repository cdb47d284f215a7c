"""Bytes in, bytes out: what the server and the command line ask with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.review.admission import parse, render
from webhook.review.deciding import mutate, validate
from webhook.review.memory import RefusalMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Decision

MUTATE = "/mutate"
VALIDATE = "/validate"


def _ignore(review: Review, decision: Decision) -> None:
    """Keep nothing of a decision."""


class Answerer:
    """Answers AdmissionReviews with the facts and the settings of the moment."""

    def __init__(
        self,
        facts: Callable[[], Snapshot],
        configuration: Callable[[], Configuration],
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        on_decision: Callable[[Review, Decision], None] = _ignore,
    ) -> None:
        """Take where facts, settings, time and ids come from, and who is told of decisions."""
        self._facts = facts
        self._configuration = configuration
        self._clock = clock
        self._new_id = new_id
        self._on_decision = on_decision
        self._memory = RefusalMemory()

    def answer(self, path: str, body: bytes) -> bytes:
        """Answer one AdmissionReview.

        Args:
            path: ``/mutate`` or ``/validate``.
            body: An AdmissionReview in JSON.

        Raises:
            NotAReview: The body is none.
        """
        review = parse(body)
        decide = mutate if path == MUTATE else validate
        decision = decide(
            review,
            self._facts(),
            self._configuration(),
            self._clock(),
            self._new_id,
            self._memory,
        )
        self._on_decision(review, decision)
        return render(review, decision)

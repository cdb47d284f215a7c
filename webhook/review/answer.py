"""Bytes in, bytes out: what the server and the command line ask with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model.fields import InvalidObject
from webhook.review.admission import parse, render
from webhook.review.deciding import mutate, not_judged, validate
from webhook.review.decision import Circumstances
from webhook.review.memory import RefusalMemory

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Decision

MUTATE = "/mutate"
VALIDATE = "/validate"


def _nothing() -> None:
    """Do nothing of it."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """A decision that is being kept, on disk for instance; its reply waits for that.

    Attributes:
        ends: Ends when it is kept.
        late: To be called when the reply cannot wait any longer, and leaves before that.
    """

    ends: Awaitable[object]
    late: Callable[[], None] = _nothing


Keeper = Callable[["Review", "Decision", Circumstances], Keeping | None]
"""Is told of each decision and of how it was made. Where it returns something, the reply waits
until that ends, but never past its deadline."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a review.

    Attributes:
        body: An AdmissionReview in JSON.
        kept: The decision's; None where nothing is to be waited for.
    """

    body: bytes
    kept: Keeping | None = None


def _ignore(review: Review, decision: Decision, circumstances: Circumstances) -> None:
    """Keep nothing of a decision."""


class Answerer:
    """Answers AdmissionReviews with the facts and the settings of the moment."""

    def __init__(
        self,
        facts: Callable[[], Snapshot],
        configuration: Callable[[], Configuration],
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        on_decision: Keeper = _ignore,
    ) -> None:
        """Take where facts, settings, time and ids come from, and who is told of decisions."""
        self._facts = facts
        self._configuration = configuration
        self._clock = clock
        self._new_id = new_id
        self._on_decision = on_decision
        self._memory = RefusalMemory()

    def answer(self, path: str, body: bytes, late: str = "") -> Answer:
        """Answer one AdmissionReview.

        An object or a fact with a field of a type that its kind cannot have is not judged; the
        outcome is blind.

        Args:
            path: ``/mutate`` or ``/validate``.
            body: An AdmissionReview in JSON.
            late: Why there is no time left to decide; it is then answered as blind. "" where
                there is time.

        Raises:
            NotAReview: The body is none.
        """
        began = time.perf_counter()
        review = parse(body)
        mutating = path == MUTATE
        decide = mutate if mutating else validate
        given = (
            *(review, self._facts(), self._configuration(), self._clock(), self._new_id),
            self._memory,
        )
        try:
            decision = decide(*given, late)
        except InvalidObject as error:
            decision = not_judged(*given, str(error), mutating=mutating)
        _, facts, _, now, _, _ = given
        seconds = time.perf_counter() - began
        kept = self._on_decision(review, decision, Circumstances(mutating, facts, now, seconds))
        return Answer(render(review, decision), kept)

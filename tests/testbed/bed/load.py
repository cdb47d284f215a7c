"""A steady load of honest requests through the API server, and how each was answered."""

from __future__ import annotations

import http
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from prometheus_client.parser import text_string_to_metric_families
from urllib3.exceptions import HTTPError

from tests.testbed.bed.api import Api, ApiError, Object
from tests.testbed.bed.guard import SETTLED_AFTER
from tests.testbed.bed.pool import KUBEVIRT, Pool

DECISION = "migration-guard.io/decision"
PER_SECOND, CLIENTS = 20.0, 4
_WITHIN = 60.0
_OF_THE_GUARD = ".migration-guard.io"
_COUNTED = "apiserver_admission_webhook"


class Outcome(StrEnum):
    """How a request ended."""

    RIGHT = "decided by the guard, rightly"
    WRONG = "decided by the guard, wrongly"
    LET_THROUGH = "let through without the guard's decision"
    REFUSED = "refused because the guard did not answer"
    UNHEARD = "not answered, and not because of the guard"


@dataclass(frozen=True, slots=True)
class Question:
    """A dry-run create, and what the guard must say to it.

    Attributes:
        where: The collection.
        obj: The object.
        allowed: Whether the guard must allow it.
    """

    where: str
    obj: Object
    allowed: bool

    def ask(self, api: Api) -> tuple[Outcome, str]:
        """Send it; return how it ended, and the text that says so."""
        try:
            made = api.create(self.where, self.obj, dryRun="All")
        except ApiError as error:
            return self._refused(error), str(error)
        except HTTPError as error:
            return Outcome.UNHEARD, repr(error)
        # The first of its two webhooks leaves a mark; the second one's yes leaves none.
        marked = DECISION in made["metadata"].get("annotations", {})
        return Outcome.RIGHT if self.allowed and marked else Outcome.LET_THROUGH, "allowed"

    def _refused(self, error: ApiError) -> Outcome:
        if _OF_THE_GUARD not in error.message:
            return Outcome.UNHEARD
        if error.status != http.HTTPStatus.FORBIDDEN:
            return Outcome.REFUSED
        return Outcome.WRONG if self.allowed else Outcome.RIGHT


@dataclass(frozen=True, slots=True)
class Answer:
    """One request of the load; ``began`` and ``ended`` are of ``time.monotonic``, in seconds."""

    question: Question
    outcome: Outcome
    said: str
    began: float
    ended: float

    def overlaps(self, since: float, until: float) -> bool:
        """Whether it was under way at some moment between the two."""
        return self.ended >= since and self.began <= until


class SteadyLoad:
    """Clients that ask all questions in turn at a steady pace, while the ``with`` block runs.

    A client waits for one answer before it asks again, so no more requests than there are clients
    are ever under way.

    Args:
        api: As whom they ask.
        questions: What they ask.
        per_second: How often, all together.
        clients: How many there are.
    """

    def __init__(
        self,
        api: Api,
        questions: Sequence[Question],
        *,
        per_second: float = PER_SECOND,
        clients: int = CLIENTS,
    ) -> None:
        self._api = api
        self._questions = questions
        self._pause = clients / per_second
        self._answers: list[Answer] = []
        self._counts_from = math.inf
        self._over = threading.Event()
        self._clients = [
            threading.Thread(target=self._ask, args=(number, clients), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> SteadyLoad:
        for client in self._clients:
            client.start()
        self.settle()
        self._counts_from = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    @property
    def answers(self) -> Sequence[Answer]:
        """All answers so far, in the order in which they came.

        What was asked before the block began does not count: the VMs were new to the guard then.
        """
        return [answer for answer in tuple(self._answers) if answer.began >= self._counts_from]

    def settle(self, answers: int = 40, seconds: float = _WITHIN) -> None:
        """Wait until so many requests in a row, begun after now, were decided rightly."""
        now = time.monotonic()
        end = now + seconds
        while True:
            since = [answer for answer in tuple(self._answers) if answer.began >= now]
            last = since[-answers:]
            if len(last) == answers and all(a.outcome is Outcome.RIGHT for a in last):
                return
            assert time.monotonic() < end, f"not decided rightly: {summary(since)}"
            time.sleep(0.05)

    def not_right(self, *but: Outcome) -> list[Answer]:
        """Return the answers that were not decided rightly, but for these outcomes."""
        return [a for a in self.answers if a.outcome not in (Outcome.RIGHT, *but)]

    def _ask(self, number: int, clients: int) -> None:
        turn = time.monotonic() + self._pause * number / clients
        while not self._over.wait(max(0.0, turn - time.monotonic())):
            question = self._questions[number % len(self._questions)]
            began = time.monotonic()
            outcome, said = question.ask(self._api)
            self._answers.append(Answer(question, outcome, said, began, time.monotonic()))
            number += 1
            # A client that was kept waiting does not make up for it in a burst.
            turn = max(turn + self._pause, time.monotonic())


def failed_calls(api: Api) -> float:
    """Return how many calls of the guard's webhooks have failed since the API server started.

    Whatever failurePolicy then says: let through (``fail_open_count``) or refused.
    """
    failed = 0.0
    for family in text_string_to_metric_families(api.text("/metrics")):
        for sample in family.samples:
            let_through = family.name == f"{_COUNTED}_fail_open_count"
            refused = (
                family.name == f"{_COUNTED}_rejection_count"
                and sample.labels["error_type"] == "calling_webhook_error"
            )
            if (let_through or refused) and sample.labels["name"].endswith(_OF_THE_GUARD):
                failed += sample.value
    return failed


def summary(answers: Iterable[Answer]) -> str:
    """Say how requests ended, with a sample of each outcome that is not right."""
    answers = list(answers)
    counts = Counter(answer.outcome for answer in answers)
    samples = {a.outcome: a.said for a in answers if a.outcome is not Outcome.RIGHT}
    return "; ".join(
        f"{count} {outcome}" + (f" ({samples[outcome][:300]})" if outcome in samples else "")
        for outcome, count in counts.most_common()
    )


def movable_and_stuck(pool: Pool) -> tuple[Question, Question]:
    """Start a VM that can move and one that cannot; return a migration of each."""
    source, _ = pool.node(), pool.node()
    lonely = pool.node("icelake")
    pool.vm("movable", on=source)
    pool.vm("stuck", "host-model", on=lonely)
    pool.wait_until_older(SETTLED_AFTER)
    return migration_of(pool, "movable", allowed=True), migration_of(pool, "stuck", allowed=False)


def migration_of(pool: Pool, vmi: str, *, allowed: bool) -> Question:
    """Return the question whether a VM may be migrated."""
    where = pool.at(KUBEVIRT, "virtualmachineinstancemigrations")
    return Question(where, pool.migration_manifest(vmi), allowed)

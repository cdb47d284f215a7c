"""What becomes of a server's decisions: the audit, Events, and where their state is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from socket import gethostname
from typing import TYPE_CHECKING

from webhook.audit.event_recorder import EventRecorder
from webhook.audit.recording import is_kept, record_of
from webhook.cli.printing import say
from webhook.cluster.access import AccessReviews
from webhook.review.answer import Keeping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from flask import Blueprint

    from webhook.audit.keeper import Audit, AuditSettings
    from webhook.cli.decision_log import DecisionLog
    from webhook.cluster.connection import Connection
    from webhook.review.admission import Review
    from webhook.review.decision import Circumstances, Decision
    from webhook.serving.audit_api import AuditApi
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    """A record that must be on disk before anything comes of its decision.

    Attributes:
        future: Ends when it is on disk (true) or lost (false).
        note_late: To be called when nobody can wait for that any longer.
    """

    future: Future[bool]
    note_late: Callable[[], None]


class ServedAudit:
    """Keeps decisions, and tells of them in Events, where ``serve`` is told to."""

    def __init__(
        self,
        settings: AuditSettings | None,
        readiness: Readiness,
        metrics: Metrics,
        log: DecisionLog,
        cluster: Connection | None,
        facts_age: Callable[[], float | None],
        *,
        events: bool,
    ) -> None:
        """Open the audit; :meth:`start` begins to write.

        Args:
            settings: Where it is kept; None to keep none.
            cluster: The one that is followed; None where facts come from files.
            events: Whether Events are written there.
            readiness: Where its state is told.
            metrics: Likewise.
            log: Takes the records that are lost.
            facts_age: Returns the seconds since the facts' last sign of life; None for files.

        Raises:
            StartError: Its folder cannot be used.
        """
        self._facts_age = facts_age
        self._audit: Audit | None = None
        self._api: AuditApi | None = None
        self._events: EventRecorder | None = None
        if cluster is not None and events:
            self._events = EventRecorder(cluster, gethostname(), metrics.count_dropped_event)
        if settings is None:
            readiness.report("audit", True, "not kept: no --audit-dir; decisions are logged only")
            return
        # Only who keeps an audit pays for importing SQLAlchemy.
        from webhook.audit.errors import AuditError
        from webhook.audit.keeper import Audit
        from webhook.serving.audit_access import TokenAccess, this_host_alone
        from webhook.serving.audit_api import AuditApi
        from webhook.serving.audit_metrics import AuditCollector
        from webhook.serving.errors import StartError

        def report(text: str) -> None:
            readiness.report("audit", True, text)

        try:
            self._audit = Audit(settings, log.lost, log.late, report)
        except AuditError as error:
            raise StartError(str(error)) from error
        for notice in self._audit.status().spool.notices:
            say(f"audit: {notice}")
        metrics.add(AuditCollector(self._audit.status))
        access = this_host_alone
        if cluster is not None:
            access = TokenAccess(AccessReviews(cluster), say)
        self._api = AuditApi(settings.url, settings.folder, access)

    def start(self) -> None:
        """Begin to write and to ship."""
        if self._events is not None:
            self._events.start()
        if self._audit is not None:
            self._audit.start()

    def stop(self) -> None:
        """Write and ship what there is, and end."""
        if self._events is not None:
            self._events.stop()
        if self._audit is not None:
            self._audit.stop()
        if self._api is not None:
            self._api.close()

    def pages(self) -> Sequence[Blueprint]:
        """Return what reads the audit on the operations port."""
        return (self._api.blueprint(),) if self._api is not None else ()

    def keep(
        self, review: Review, decision: Decision, circumstances: Circumstances
    ) -> Keeping | None:
        """Keep a decision; called on the event loop's thread.

        Returns:
            For a refusal, what ends when it is on disk, or lost; else None.
        """
        begun = self._begin(review, decision, circumstances)
        if begun is None:
            return None
        on_disk: asyncio.Future[bool] = asyncio.wrap_future(begun.future)
        return Keeping(on_disk, begun.note_late)

    def keep_waiting(
        self, review: Review, decision: Decision, circumstances: Circumstances, seconds: float
    ) -> None:
        """Keep a decision, and wait until it is on disk, or lost, for so long at most.

        Not for the event loop's thread.
        """
        begun = self._begin(review, decision, circumstances)
        if begun is None:
            return
        try:
            begun.future.result(seconds)
        except TimeoutError:
            begun.note_late()

    def _begin(
        self, review: Review, decision: Decision, circumstances: Circumstances
    ) -> _OnItsWay | None:
        """Tell of a decision, and begin to keep it; return what can be waited for."""
        if (self._audit is None and self._events is None) or not is_kept(review, decision):
            return None
        record = record_of(review, decision, replace(circumstances, facts_age=self._facts_age()))
        if self._events is not None:
            self._events.tell(record)
        audit = self._audit
        if audit is None:
            return None
        future = audit.keep(record)
        if future is None:
            return None
        return _OnItsWay(future, lambda: audit.note_late(future, record))

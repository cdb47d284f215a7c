"""What the audit counts, for Prometheus: read from its state when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.audit.importance import Importance
from webhook.audit.loss import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from webhook.audit.keeper import AuditStatus

PREFIX = "migration_guard_audit_"


class AuditCollector(Collector):
    """Metrics of one audit."""

    def __init__(self, status: Callable[[], AuditStatus]) -> None:
        """Take what returns the state of the moment, from any thread."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; each series is there from the start."""
        now = self._status()
        kept = CounterMetricFamily(
            f"{PREFIX}records",
            "Records written to the spool, by importance.",
            labels=("importance",),
        )
        for importance in Importance:
            kept.add_metric((importance.name.lower(),), now.spool.kept.get(importance, 0))
        yield kept
        lost = CounterMetricFamily(
            f"{PREFIX}lost",
            "Records lost, by reason; the log has each of them whole.",
            labels=("reason",),
        )
        for reason in Reason:
            lost.add_metric((reason.value,), now.spool.lost.get(reason, 0))
        yield lost
        yield CounterMetricFamily(
            f"{PREFIX}late",
            "Refusals that were told before they were on disk; the log has each of them whole.",
            value=now.spool.late,
        )
        yield CounterMetricFamily(
            f"{PREFIX}shipped",
            "Records written to the database, those it had already left out.",
            value=now.shipping.shipped,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}spool_bytes", "Bytes of the spool's files.", value=now.spool.size
        )
        yield GaugeMetricFamily(
            f"{PREFIX}waiting_records",
            "Records that the database does not have yet.",
            value=now.spool.waiting,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}lag_seconds",
            "Age of the oldest record that is under way to the database; 0 where none is.",
            value=now.shipping.lag,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}database_up",
            "Whether the database takes records: 0 from the first failure until it works again.",
            value=0 if now.shipping.failure else 1,
        )

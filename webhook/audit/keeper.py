"""The audit as the server sees it: decisions in, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.audit.database import SQLITE_FILE, sqlite_url
from webhook.audit.importance import IMPORTANCE
from webhook.audit.record import rfc3339
from webhook.audit.retention import Retention
from webhook.audit.shipping import Shipper, ShippingStatus
from webhook.audit.spool import Spool, SpoolLimits, SpoolStatus
from webhook.audit.store import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from sqlalchemy.engine import URL

    from webhook.audit.loss import Loss
    from webhook.audit.record import Record


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where the audit is kept, and how much of it.

    Attributes:
        folder: For the spool, and for SQLite where no database is named.
        database: The database; None for SQLite in the folder.
    """

    folder: Path
    database: URL | None = None
    limits: SpoolLimits = field(default_factory=SpoolLimits)
    retention: Retention = field(default_factory=Retention)

    @property
    def url(self) -> URL:
        """The database's URL."""
        return self.database if self.database is not None else sqlite_url(self.folder)


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """The state of the audit."""

    spool: SpoolStatus
    shipping: ShippingStatus


class Audit:
    """Keeps decisions: in the spool at once, in the database soon after."""

    def __init__(
        self,
        settings: AuditSettings,
        on_loss: Callable[[Loss], None],
        on_late: Callable[[bytes], None],
        report: Callable[[str], None],
    ) -> None:
        """Open the spool; :meth:`start` begins to write and to ship.

        Args:
            settings: Where it is kept.
            on_loss: Is told of each record that is lost. It must not raise.
            on_late: Is told of each refusal that is told before it is on disk. It must not raise.
            report: Is told how the audit is, in words, whenever that changes. It must not raise.

        Raises:
            AuditError: The folder cannot be used.
        """
        self._settings = settings
        self._on_late = on_late
        self._report = report
        self._spool = Spool(settings.folder, settings.limits, on_loss)
        self._shipper = Shipper(self._spool, settings.url, settings.retention, self._tell)

    def start(self) -> None:
        """Begin to write and to ship."""
        self._spool.start()
        self._shipper.start()

    def stop(self) -> None:
        """Write all there is to disk, ship what can be shipped in two seconds, and end."""
        self._spool.stop()
        self._shipper.stop()
        self._spool.close()

    def keep(self, record: Record) -> Future[bool] | None:
        """Keep a record; never waits.

        Returns:
            For a refusal, what ends when it is on disk (true) or lost (false); else None.
        """
        return self._spool.keep(record.encode(), IMPORTANCE[record.outcome])

    def note_late(self, future: Future[bool], record: Record) -> None:
        """Note that a refusal is told, although what :meth:`keep` returned has not ended.

        The disk hangs, and may never take it: the record is handed on to be written elsewhere.
        """
        if self._spool.note_late(future):
            self._on_late(record.encode())
            self._tell()

    def status(self) -> AuditStatus:
        """Return the state of this moment."""
        return AuditStatus(self._spool.status(), self._shipper.status())

    def _tell(self) -> None:
        self._report(self.described())

    def described(self) -> str:
        """Return the state in words, with "warning" in front where it is not well."""
        status = self.status()
        troubles = []
        if status.shipping.failure:
            since = _at(status.shipping.failing_since)
            troubles.append(f"the database takes nothing since {since}: {status.shipping.failure}")
        if status.spool.overdue:
            since = _at(status.spool.overdue_since)
            troubles.append(
                f"the disk hangs: {status.spool.overdue} refusals told since {since} are not on it "
                "yet, the log has them"
            )
        if status.spool.lost:
            lost = ", ".join(f"{reason.value} {n}" for reason, n in status.spool.lost.items())
            troubles.append(f"records lost ({lost}), the last at {_at(status.spool.lost_at)}")
        troubles += status.spool.notices
        where = f"spool {self._settings.folder}, {self._database()}"
        if not troubles:
            return where
        waiting = f"{status.spool.waiting} records wait" if status.shipping.failure else ""
        return "warning: " + "; ".join(filter(None, (*troubles, waiting, where)))

    def _database(self) -> str:
        url = self._settings.url
        if url.get_backend_name() == "sqlite":
            return f"database {SQLITE_FILE if self._settings.database is None else url.database}"
        return f"database {url.database} on {url.host or url.query.get('host', 'a local socket')}"


def _at(seconds: float | None) -> str:
    return rfc3339(int((seconds or 0.0) * MICROSECONDS))[:19] + "Z"

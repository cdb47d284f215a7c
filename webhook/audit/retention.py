"""How long records stay in the database, and how many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from webhook.audit import schema
from webhook.audit.importance import IMPORTANCE, Importance
from webhook.audit.record import decode
from webhook.audit.store import DAY, MICROSECONDS

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

BATCH = 2_000
"""Rows deleted in one transaction: others wait for no longer than that takes."""
FREE_PAGES = 4_000
"""Pages of 4 KiB that SQLite gives back at a time, at the end of each round."""
IDS_PER_ROW = 2
"""Decision ids that stay for each record that may, on average."""
BUSIEST = 100
"""Records that lose ids in one transaction."""
# Any number, but the same in every version, and another than that of the migration.
_LOCK = 5_823_412_908
_SUMS = (schema.count.c.decisions, schema.count.c.records)


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        seconds: After its last time a record stays for so long; sums by day likewise.
        rows: At most so many records stay, of those that matter alike the newest, and at most
            ``IDS_PER_ROW`` times as many decision ids.
    """

    seconds: float = 365 * 86_400.0
    rows: int = 1_000_000


def apply(engine: Engine, retention: Retention, now: float) -> int:
    """Delete one batch of what need not stay; call it again until it returns 0.

    Of several replicas one does it at a time; the others have nothing to do meanwhile.

    Args:
        engine: The database.
        retention: What stays.
        now: Seconds since 1970. It counts no further than a day after the newest record, and with
            PostgreSQL no further than the server's own clock: a wrong one must not delete what is
            young.

    Returns:
        How many records were deleted, or, where no record was, decision ids.

    Raises:
        SQLAlchemyError: Nothing was deleted.
    """
    with engine.begin() as connection:
        if not _is_alone(connection):
            return 0
        oldest = _now(connection, now) - int(retention.seconds * MICROSECONDS)
        ids = _old(connection, oldest) or _too_many(connection, retention.rows)
        if ids:
            for column in (schema.decision.c.record_id, schema.record.c.id):
                connection.execute(sa.delete(column.table).where(column.in_(ids)))
        deleted = len(ids) or _drop_ids(connection, retention.rows * IDS_PER_ROW)
        if not deleted:
            _drop_days(connection, oldest // DAY)
    if not deleted and engine.dialect.name == "sqlite":
        _tidy(engine)
    return deleted


def _is_alone(connection: Connection) -> bool:
    """Tell whether no other replica deletes now; none begins until the transaction ends."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))))


def _now(connection: Connection, now: float) -> int:
    """Return the time that ages are counted from, in microseconds."""
    if connection.dialect.name == "postgresql":
        now = min(now, float(connection.scalar(sa.text("SELECT extract(epoch FROM now())"))))
    time = int(now * MICROSECONDS)
    newest = connection.scalar(sa.select(sa.func.max(schema.record.c.last_time)))
    return time if newest is None else min(time, newest + DAY)


def _tidy(engine: Engine) -> None:
    """Give pages that are free back to the file system, and renew what SQLite plans queries by."""
    connection = engine.raw_connection()
    try:
        # As a script: of a single statement Python takes the first step only, which is one page.
        # The lock comes first: SQLite refuses to upgrade who has read while another wrote.
        vacuum = f"PRAGMA incremental_vacuum({FREE_PAGES})"
        script = f"BEGIN IMMEDIATE; {vacuum}; PRAGMA optimize; COMMIT"
        driver: Any = connection.driver_connection
        driver.executescript(script)
    finally:
        connection.close()


def _drop_days(connection: Connection, first_kept: int) -> None:
    """Delete sums of days that are over, and take them out of the sum of all days."""
    table = schema.count
    fewer: Counter[tuple[str, str, str]] = Counter()
    rows: Counter[tuple[str, str, str]] = Counter()
    # What another replica deletes at the same time is returned to that one only.
    gone = (
        sa.delete(table)
        .where(table.c.day < first_kept, table.c.day != schema.ALL_DAYS)
        .returning(table.c.dimension, table.c.value, table.c.outcome, *_SUMS)
    )
    for dimension, value, outcome, decisions, records in connection.execute(gone):
        fewer[dimension, value, outcome] += decisions
        rows[dimension, value, outcome] += records
    if not fewer:
        return
    of_all = (
        sa.update(table)
        .where(
            table.c.dimension == sa.bindparam("of"),
            table.c.day == schema.ALL_DAYS,
            table.c.value == sa.bindparam("named"),
            table.c.outcome == sa.bindparam("ended"),
        )
        .values(
            decisions=table.c.decisions - sa.bindparam("fewer"),
            records=table.c.records - sa.bindparam("rows"),
        )
    )
    connection.execute(
        of_all,
        [
            {
                "of": where[0],
                "named": where[1],
                "ended": where[2],
                "fewer": number,
                "rows": rows[where],
            }
            for where, number in sorted(fewer.items())
        ],
    )
    connection.execute(
        sa.delete(table).where(table.c.day == schema.ALL_DAYS, table.c.decisions <= 0)
    )


def _old(connection: Connection, oldest: int) -> list[int]:
    table = schema.record
    query = sa.select(table.c.id).where(table.c.last_time < oldest).order_by(table.c.last_time)
    return _held(connection, query.limit(BATCH))


def _too_many(connection: Connection, rows: int) -> list[int]:
    """Return the oldest of those records that matter least, where there are too many."""
    table = schema.record
    over = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() - rows
    if over <= 0:
        return []
    for importance in Importance:
        oldest = sorted(
            (row.last_time, row.id)
            for outcome, matters in IMPORTANCE.items()
            if matters is importance
            for row in connection.execute(
                sa.select(table.c.last_time, table.c.id)
                .where(table.c.outcome == outcome.value)
                .order_by(table.c.last_time, table.c.id)
                .limit(min(over, BATCH))
            )
        )[: min(over, BATCH)]
        if oldest:
            last_time, _ = oldest[-1]
            ids = [row_id for _, row_id in oldest]
            query = sa.select(table.c.id).where(table.c.id.in_(ids), table.c.last_time <= last_time)
            return _held(connection, query)
    return []


def _held(connection: Connection, query: sa.Select[tuple[int]]) -> list[int]:
    """Hold the rows of a query until they are deleted; what is being repeated is left out.

    PostgreSQL looks again at the conditions once it holds a row. SQLite has one writer at a time.
    """
    return list(connection.scalars(query.with_for_update(skip_locked=True)))


def _drop_ids(connection: Connection, most: int) -> int:
    """Delete ids of the records that have most of them, where there are too many; return how many.

    A record loses half of its ids at a time, the oldest, but never the one that it tells of. One
    with less than half as many as another, or no more than ``IDS_PER_ROW``, loses none.
    """
    given = schema.decision
    over = connection.execute(sa.select(sa.func.count()).select_from(given)).scalar_one() - most
    if over <= 0:
        return 0
    number = sa.func.count().label("number")
    busiest = connection.execute(
        sa.select(given.c.record_id, number)
        .group_by(given.c.record_id)
        .having(number > IDS_PER_ROW)
        .order_by(number.desc(), given.c.record_id)
        .limit(BUSIEST)
    ).all()
    deleted = 0
    for row in busiest:
        if row.number * 2 < busiest[0].number:
            break
        of_row = given.c.record_id == row.record_id
        document = connection.scalar(
            sa.select(schema.record.c.document).where(schema.record.c.id == row.record_id)
        )
        own = decode(document).decision if document is not None else ""
        ids = connection.scalars(
            sa.select(given.c.decision)
            .where(of_row, given.c.decision != own)
            .order_by(given.c.decision)
            .limit(min(row.number // 2, over - deleted, BATCH - deleted))
        ).all()
        if ids:
            connection.execute(sa.delete(given).where(of_row, given.c.decision.in_(ids)))
        deleted += len(ids)
        if deleted == min(over, BATCH):
            break
    return deleted

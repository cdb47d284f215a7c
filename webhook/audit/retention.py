"""How long records stay in the database, and how many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from webhook.audit import schema
from webhook.audit.store import DAY, MICROSECONDS

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

BATCH = 2_000
"""Rows deleted in one transaction: others wait for no longer than that takes."""
FREE_PAGES = 4_000
"""Pages of 4 KiB that SQLite gives back at a time, at the end of each round."""
_SUMS = (schema.count.c.decisions, schema.count.c.records)


@dataclass(frozen=True, slots=True)
class Retention:
    """What stays.

    Attributes:
        seconds: After its last time a record stays for so long; sums by day likewise.
        rows: At most so many records stay, the newest.
    """

    seconds: float = 365 * 86_400.0
    rows: int = 1_000_000


def apply(engine: Engine, retention: Retention, now: float) -> int:
    """Delete one batch of what need not stay; call it again until it returns 0.

    Args:
        engine: The database.
        retention: What stays.
        now: Seconds since 1970.

    Returns:
        How many records were deleted.

    Raises:
        SQLAlchemyError: Nothing was deleted.
    """
    oldest = int((now - retention.seconds) * MICROSECONDS)
    with engine.begin() as connection:
        ids = _old(connection, oldest) or _too_many(connection, retention.rows)
        if ids:
            for column in (schema.decision.c.record_id, schema.record.c.id):
                connection.execute(sa.delete(column.table).where(column.in_(ids)))
        else:
            _drop_days(connection, oldest // DAY)
    if not ids and engine.dialect.name == "sqlite":
        _tidy(engine)
    return len(ids)


def _tidy(engine: Engine) -> None:
    """Give pages that are free back to the file system, and renew what SQLite plans queries by."""
    connection = engine.raw_connection()
    try:
        # As a script: of a single statement Python takes the first step only, which is one page.
        script = f"PRAGMA incremental_vacuum({FREE_PAGES}); PRAGMA optimize"
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
    return list(connection.scalars(query.limit(BATCH)))


def _too_many(connection: Connection, rows: int) -> list[int]:
    table = schema.record
    over = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() - rows
    if over <= 0:
        return []
    query = sa.select(table.c.id).order_by(table.c.last_time, table.c.id)
    return list(connection.scalars(query.limit(min(over, BATCH))))

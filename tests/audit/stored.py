"""What a test puts into the database, and what it finds there."""

from __future__ import annotations

import sqlalchemy as sa

from webhook.audit import schema
from webhook.audit.record import Record
from webhook.audit.segments import Frame


def frames(*records: Record, first: int = 1) -> list[Frame]:
    return [Frame(first + number, record.encode()) for number, record in enumerate(records)]


def rows(engine, table=schema.record):
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table)).mappings())


def found(engine, decision: str) -> list[int]:
    table = schema.decision
    with engine.connect() as connection:
        query = sa.select(table.c.record_id).where(table.c.decision == decision)
        return list(connection.scalars(query))

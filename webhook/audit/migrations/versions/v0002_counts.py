"""Sums by day, so that statistics need not read the records; made from those that are there."""

from __future__ import annotations

import json
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_DAY = 86_400_000_000
_ALL_DAYS = -1
_BATCH = 1000


def upgrade() -> None:
    """Make the table and fill it."""
    table = op.create_table(
        "audit_count",
        sa.Column("dimension", sa.String(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.String(256), primary_key=True),
        sa.Column("outcome", sa.String(32), primary_key=True),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
    )
    decisions: Counter[tuple[str, int, str, str]] = Counter()
    records: Counter[tuple[str, int, str, str]] = Counter()
    known = sa.table(
        "audit_record",
        *map(sa.column, ("id", "last_time", "count", "outcome", "rule", "vm", "document")),
    )
    last = 0
    while True:
        query = sa.select(known).where(known.c.id > last).order_by(known.c.id).limit(_BATCH)
        rows = op.get_bind().execute(query).all()
        if not rows:
            break
        for row in rows:
            last = row.id
            repeats: int = row._mapping["count"]
            labels = {
                label[:256].replace("\0", "\ufffd")
                for part in json.loads(row.document)["obstacles"]
                for obstacle in part["obstacles"]
                for label in obstacle["missing"]
            }
            pairs = [("rule", row.rule), ("vm", row.vm), *(("label", text) for text in labels)]
            for dimension, value in pairs:
                for day in (_ALL_DAYS, row.last_time // _DAY):
                    where = (dimension, day, value, row.outcome)
                    decisions[where] += repeats
                    records[where] += 1
    if decisions:
        names = ("dimension", "day", "value", "outcome")
        values = [
            {**dict(zip(names, where, strict=True)), "decisions": n, "records": records[where]}
            for where, n in decisions.items()
        ]
        op.bulk_insert(table, values)

"""Writing records into the database: each once, identical ones folded into one row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from webhook.audit import schema
from webhook.audit.record import Record, decode
from webhook.audit.schema import key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection, Engine

    from webhook.audit.segments import Frame

MICROSECONDS = 1_000_000
DAY = 86_400 * MICROSECONDS
GAP = 3_600 * MICROSECONDS
"""An identical decision that comes later than this after the last one makes a row of its own."""
SPAN = DAY
"""As does one that is this much later than the first, or earlier than the last (a replica that was
long without the database, a clock that was set): no row is longer than twice this."""

RULE, VM, LABEL = "rule", "vm", "label"
"""What decisions are counted by, see ``audit_count``."""


@dataclass(slots=True)
class _Row:
    """One row to be: decisions that are folded together."""

    replica: str
    sequence: int
    record: Record
    document: str
    first_time: int
    last_time: int
    count: int
    decisions: set[str]

    def takes(self, record: Record) -> bool:
        """Tell whether a decision still belongs into this row."""
        return _near(record.time, self.first_time, self.last_time)

    def add(self, record: Record) -> None:
        self.first_time = min(self.first_time, record.time)
        self.last_time = max(self.last_time, record.time)
        self.count += 1
        self.decisions.add(record.decision)


def _near(time: int, first_time: int, last_time: int) -> bool:
    return time - last_time <= GAP and time - first_time <= SPAN and last_time - time <= SPAN


class Store:
    """Writes into one database."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine of a database whose schema is up to date."""
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    def write(self, replica: str, frames: Sequence[Frame]) -> int:
        """Write records of one writer, in one transaction.

        What the database has already is left out, so a batch can be sent again when nobody knows
        whether it arrived.

        Args:
            replica: The name of the process that wrote them into its spool; no two have the same,
                also where one folder is a copy of the other.
            frames: Its records in order, none left out before or between them.

        Returns:
            How many were new.

        Raises:
            SQLAlchemyError: Nothing is written, as far as one can know.
            ValueError: One of them is no record that can be kept; nothing is written.
        """
        with self._engine.begin() as connection:
            known = self._sequence(connection, replica)
            new = [frame for frame in frames if frame.sequence > known]
            if not new:
                return 0
            counts = _Counts()
            for rows in _generations(replica, new):
                self._write_rows(connection, rows, counts)
            self._write_counts(connection, counts)
            connection.execute(
                sa.update(schema.replica)
                .where(schema.replica.c.replica == replica)
                .values(sequence=new[-1].sequence)
            )
        return len(new)

    def _sequence(self, connection: Connection, replica: str) -> int:
        """Return the last sequence number of a replica that the database has, and hold its row."""
        connection.execute(
            self._insert(schema.replica)
            .values(replica=replica, sequence=0)
            .on_conflict_do_nothing()
        )
        found: int = connection.execute(
            sa.select(schema.replica.c.sequence)
            .where(schema.replica.c.replica == replica)
            .with_for_update()
        ).scalar_one()
        return found

    def _write_rows(self, connection: Connection, rows: dict[str, _Row], counts: _Counts) -> None:
        self._close_old(connection, rows)
        table = schema.record
        insert = self._insert(table)
        new = insert.excluded
        upsert = insert.on_conflict_do_update(
            index_elements=[table.c.fold],
            set_={
                "count": table.c.count + new.count,
                "first_time": _least(table.c.first_time, new.first_time),
                "last_time": _greatest(table.c.last_time, new.last_time),
            },
        ).returning(table.c.id, table.c.fold, table.c.count)
        # In one order everywhere, so that two replicas never wait for each other.
        values = [_values(fold, rows[fold]) for fold in sorted(rows)]
        ids = []
        for row_id, fold, count in connection.execute(upsert, values):
            row = rows[fold]
            ids += [{"decision": one, "record_id": row_id} for one in sorted(row.decisions)]
            counts.add(row, new=count == row.count)
        connection.execute(self._insert(schema.decision).on_conflict_do_nothing(), ids)

    def _close_old(self, connection: Connection, rows: dict[str, _Row]) -> None:
        """Let go of rows that are too old for what comes now; it makes rows of its own."""
        table = schema.record
        known = connection.execute(
            sa.select(table.c.id, table.c.fold, table.c.first_time, table.c.last_time)
            .where(table.c.fold.in_(list(rows)))
            .order_by(table.c.fold)
            .with_for_update()
        )
        old = [
            row.id
            for row in known
            if not _near(rows[row.fold].first_time, row.first_time, row.last_time)
        ]
        if old:
            connection.execute(sa.update(table).where(table.c.id.in_(old)).values(fold=None))

    def _write_counts(self, connection: Connection, counts: _Counts) -> None:
        table = schema.count
        insert = self._insert(table)
        upsert = insert.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={
                "decisions": table.c.decisions + insert.excluded.decisions,
                "records": table.c.records + insert.excluded.records,
            },
        )
        connection.execute(upsert, counts.values())


_Where = tuple[str, int, str, str]


class _Counts:
    """What the rows of a batch add to the sums."""

    def __init__(self) -> None:
        self._decisions: Counter[_Where] = Counter()
        self._records: Counter[_Where] = Counter()

    def add(self, row: _Row, *, new: bool) -> None:
        record = row.record
        pairs = [(RULE, record.rule), (VM, record.subject)]
        pairs += ((LABEL, label) for label in record.missing)
        for dimension, value in {(d, key(v)) for d, v in pairs}:
            for day in (schema.ALL_DAYS, row.last_time // DAY):
                where = (dimension, day, value, record.outcome.value)
                self._decisions[where] += row.count
                self._records[where] += new

    def values(self) -> list[dict[str, Any]]:
        names = ("dimension", "day", "value", "outcome")
        return [
            {
                **dict(zip(names, where, strict=True)),
                "decisions": self._decisions[where],
                "records": self._records[where],
            }
            for where in sorted(self._decisions)
        ]


def _generations(replica: str, frames: Iterable[Frame]) -> list[dict[str, _Row]]:
    """Fold records; those too far apart for one row come in a later generation."""
    found: list[dict[str, _Row]] = []
    latest: dict[str, int] = {}
    for frame in frames:
        record, fold = _read(frame)
        number = latest.get(fold, -1)
        if number >= 0 and found[number][fold].takes(record):
            found[number][fold].add(record)
            continue
        number += 1
        latest[fold] = number
        if number == len(found):
            found.append({})
        found[number][fold] = _Row(
            replica,
            frame.sequence,
            record,
            frame.payload.decode(),
            record.time,
            record.time,
            1,
            {record.decision},
        )
    return found


def _read(frame: Frame) -> tuple[Record, str]:
    """Read a record, and what it is folded by.

    Raises:
        ValueError: It is none; or one that has not the form of this version, such as one that a
            later version wrote.
    """
    record = decode(frame.payload)
    try:
        # All that is made of a record: what cannot be made must hold up no other.
        fold = record.fold()
        for text in (*_searched(record).values(), *record.missing):
            key(text)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no record of this version: {type(error).__name__} {error}") from error
    return record, fold


def _searched(record: Record) -> dict[str, str]:
    """Return what a record is searched by."""
    return {
        "rule": record.rule,
        "namespace": record.namespace,
        "vm": record.subject,
        "username": record.user,
        "node": record.source,
        "chosen_node": record.chosen_node,
    }


def _values(fold: str, row: _Row) -> dict[str, Any]:
    record = row.record
    return {
        "fold": fold,
        "first_time": row.first_time,
        "last_time": row.last_time,
        "count": row.count,
        "replica": row.replica,
        "sequence": row.sequence,
        "outcome": record.outcome.value,
        **{name: key(text) for name, text in _searched(record).items()},
        "document": row.document,
    }


def _least(one: Any, other: Any) -> Any:
    return sa.case((one < other, one), else_=other)


def _greatest(one: Any, other: Any) -> Any:
    return sa.case((one > other, one), else_=other)

"""Reading the audit: lists, one decision, sums. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from webhook.audit import schema
from webhook.audit.database import VERSION, VERSION_TABLE, engine_of, why
from webhook.audit.errors import AuditError
from webhook.audit.record import rfc3339
from webhook.audit.schema import ALL_DAYS, key, storable
from webhook.audit.store import DAY, LABEL, RULE, SPAN, VM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL

MOST_ON_A_PAGE = 1000
LONGEST_SOUGHT = 1_000
TEXT_WINDOW = 10_000
"""Records that one query looks through for a text: no index holds what stands in documents."""
EXPORT_BATCH = 1000
_ROW = schema.record.c


class Cursor(NamedTuple):
    """A place in the list, newest first: right behind one row."""

    last_time: int
    row_id: int

    def __str__(self) -> str:
        """Write it as :meth:`read` reads it."""
        return f"{self.last_time}.{self.row_id}"

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Read a cursor.

        Raises:
            ValueError: It is none.
        """
        time, dot, row_id = text.partition(".")
        if not (dot and time.isascii() and time.isdigit() and row_id.isascii()):
            raise ValueError(f"{text[:60]!r} is no place in the list")
        if not row_id.isdigit() or max(len(time), len(row_id)) > 18:
            raise ValueError(f"{text[:60]!r} is no place in the list")
        return cls(int(time), int(row_id))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted: those that meet all of it.

    Attributes:
        since, until: Microseconds since 1970; a record that was repeated counts for its whole time.
        outcomes: Any of them; all where empty.
        rule: The rule that led to the outcome.
        vm: namespace/name.
        node: The source, or the node that was chosen.
        text: Anywhere in the record, whatever its case (ASCII).
    """

    since: int | None = None
    until: int | None = None
    outcomes: tuple[str, ...] = ()
    rule: str = ""
    namespace: str = ""
    vm: str = ""
    user: str = ""
    node: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A row: a record, and how often it was repeated.

    Attributes:
        document: The first record, as ``Record.to_json`` makes it.
    """

    row_id: int
    first_time: int
    last_time: int
    count: int
    replica: str
    sequence: int
    document: Mapping[str, Any]

    @property
    def cursor(self) -> Cursor:
        """The place behind this row."""
        return Cursor(self.last_time, self.row_id)

    def to_json(self) -> dict[str, Any]:
        """Return the record with what is known of its repetitions."""
        return {
            "firstTime": rfc3339(self.first_time),
            "lastTime": rfc3339(self.last_time),
            "count": self.count,
            "replica": self.replica,
            "sequence": self.sequence,
            **self.document,
        }


class Page(NamedTuple):
    """Some records of a list, and the place behind which it goes on; None at the end."""

    found: list[Found]
    behind: Cursor | None


@dataclass(frozen=True, slots=True)
class Sum:
    """How many decisions, and how many records they were folded into, by outcome."""

    value: str
    decisions: int
    records: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What was decided most, over whole days in UTC.

    Attributes:
        since, until: The first and the last day, as YYYY-MM-DD; "" for no end.
        labels: Node labels that were missing: which feature blocks most.
    """

    since: str
    until: str
    rules: Sequence[Sum] = field(default_factory=tuple)
    vms: Sequence[Sum] = field(default_factory=tuple)
    labels: Sequence[Sum] = field(default_factory=tuple)


class Reader:
    """Reads one database."""

    def __init__(self, url: URL) -> None:
        """Connect.

        Raises:
            AuditError: There is no audit, or one of another version.
        """
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise AuditError(f"{url.database}: there is no audit yet")
        self._engine = engine_of(url, read_only=True)
        try:
            self._require_version()
        except AuditError:
            self.close()
            raise

    def _require_version(self) -> None:
        table = sa.table(VERSION_TABLE, sa.column("version_num"))
        try:
            with self._engine.connect() as connection:
                there = sa.inspect(connection).has_table(VERSION_TABLE)
                version = connection.scalar(sa.select(table.c.version_num)) if there else None
        except SQLAlchemyError as error:
            raise AuditError(f"the audit's database cannot be read: {why(error)}") from error
        if version is None:
            raise AuditError("the database holds no audit; a server makes it when it starts")
        if version != VERSION:
            raise AuditError(
                f"the audit's database has schema {version[:20]}, and this program reads "
                f"{VERSION}; use the version of the server that keeps it"
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def page(self, wanted: Filter, limit: int, after: Cursor | None = None) -> Page:
        """Return the newest records, from behind a place on.

        A text is looked for in the next ``TEXT_WINDOW`` records only: there may be few or none on
        a page that is not the last.

        Raises:
            AuditError: The database cannot be read, or the text is too long to be looked for.
        """
        most = min(limit, MOST_ON_A_PAGE)
        place = sa.tuple_(_ROW.last_time, _ROW.id)
        query = sa.select(schema.record).where(*self._conditions(wanted))
        if after is not None:
            query = query.where(place < sa.tuple_(*after))
        query = query.order_by(_ROW.last_time.desc(), _ROW.id.desc())
        end = None
        if wanted.text:
            end = self._end_of_window(query)
            query = query.where(self._holds(wanted.text))
            if end is not None:
                query = query.where(place >= sa.tuple_(*end))
        found = self._found(query.limit(most))
        return Page(found, found[-1].cursor if len(found) == most else end)

    def _end_of_window(self, query: sa.Select[Any]) -> Cursor | None:
        """Return the last place of the records to be looked through now; None at the end."""
        places = query.with_only_columns(_ROW.last_time, _ROW.id)
        for row in self._rows(places.offset(TEXT_WINDOW - 1).limit(1)):
            return Cursor(row.last_time, row.id)
        return None

    def news(self, wanted: Filter, seen: Cursor) -> list[Found]:
        """Return what came or was repeated after a row, oldest first."""
        query = sa.select(schema.record).where(
            *self._conditions(wanted),
            sa.or_(_ROW.last_time > seen.last_time, _ROW.id > seen.row_id),
        )
        if wanted.text:
            query = query.where(self._holds(wanted.text))
        return self._found(query.order_by(_ROW.last_time, _ROW.id).limit(MOST_ON_A_PAGE))

    def newest(self) -> Cursor:
        """Return the newest time and the newest row there are; zeros where there is none."""
        query = sa.select(
            sa.func.coalesce(sa.func.max(_ROW.last_time), 0).label("time"),
            sa.func.coalesce(sa.func.max(_ROW.id), 0).label("id"),
        )
        newest = self._rows(query)[0]
        return Cursor(newest.time, newest.id)

    def all(self, wanted: Filter) -> Iterator[Found]:
        """Yield every record, newest first, without holding all in memory."""
        after: Cursor | None = None
        while True:
            page = self.page(wanted, EXPORT_BATCH, after)
            yield from page.found
            after = page.behind
            if after is None:
                return

    def first(self, wanted: Filter, limit: int, after: Cursor | None = None) -> Page:
        """Return as many records as are wanted, if there are; a rare text may take a while."""
        found: list[Found] = []
        while True:
            page = self.page(wanted, limit - len(found), after)
            found += page.found
            after = page.behind
            if after is None or len(found) == limit:
                return Page(found, after)

    def by_decision(self, decision: str) -> list[Found]:
        """Return what a decision id leads to, oldest first: one record for each pass."""
        given = schema.decision.c
        ids = sa.select(given.record_id).where(given.decision == key(decision))
        query = sa.select(schema.record).where(_ROW.id.in_(ids))
        return self._found(query.order_by(_ROW.first_time, _ROW.sequence))

    def stats(self, since: int | None, until: int | None, most: int) -> Stats:
        """Return sums over whole days.

        Args:
            since: A moment of the first day, in microseconds; None for no beginning.
            until: A moment of the last day; None for no end.
            most: At most so many VMs and labels.
        """
        first = since // DAY if since is not None else None
        last = until // DAY if until is not None else None
        return Stats(
            _day(first),
            _day(last),
            *(self._sums(dimension, first, last, most) for dimension in (RULE, VM, LABEL)),
        )

    def _sums(
        self, dimension: str, first: int | None, last: int | None, most: int
    ) -> tuple[Sum, ...]:
        table = schema.count.c
        where = [table.dimension == dimension, table.value != ""]
        if first is None and last is None:
            where.append(table.day == ALL_DAYS)
        else:
            where.append(table.day >= max(first or 0, 0))
            where += [table.day <= last] if last is not None else []
        decisions = sa.func.sum(table.decisions)
        top = [
            row.value
            for row in self._rows(
                sa.select(table.value)
                .where(*where)
                .group_by(table.value)
                .order_by(decisions.desc(), table.value)
                .limit(most)
            )
        ]
        outcomes: dict[str, dict[str, int]] = {value: {} for value in top}
        records = dict.fromkeys(top, 0)
        query = (
            sa.select(
                table.value,
                table.outcome,
                decisions.label("decisions"),
                sa.func.sum(table.records).label("records"),
            )
            .where(*where, table.value.in_(top))
            .group_by(table.value, table.outcome)
            .order_by(table.outcome)
        )
        for row in self._rows(query):
            outcomes[row.value][row.outcome] = int(row.decisions)
            records[row.value] += int(row.records)
        return tuple(Sum(v, sum(outcomes[v].values()), records[v], outcomes[v]) for v in top)

    def _conditions(self, wanted: Filter) -> list[sa.ColumnElement[bool]]:
        """Return all that an index can help with; the text is not among it."""
        found: list[sa.ColumnElement[bool]] = []
        if wanted.since is not None:
            found.append(_ROW.last_time >= wanted.since)
        if wanted.until is not None:
            found.append(_ROW.first_time <= wanted.until)
            # No row is longer than that: the index need not be read from its newest end.
            found.append(_ROW.last_time <= wanted.until + 2 * SPAN)
        if wanted.outcomes:
            found.append(_ROW.outcome.in_([key(outcome) for outcome in wanted.outcomes]))
        for column, value in (
            (_ROW.rule, wanted.rule),
            (_ROW.namespace, wanted.namespace),
            (_ROW.vm, wanted.vm),
            (_ROW.username, wanted.user),
        ):
            if value:
                found.append(column == key(value))
        if wanted.node:
            node = key(wanted.node)
            found.append(sa.or_(_ROW.node == node, _ROW.chosen_node == node))
        return found

    def _holds(self, text: str) -> sa.ColumnElement[bool]:
        """Match a text as it stands in a JSON document."""
        if len(text) > LONGEST_SOUGHT:
            raise AuditError(f"a text of at most {LONGEST_SOUGHT:,} characters can be looked for")
        needle = orjson.dumps(storable(text)).decode()[1:-1]
        for special in ("!", "%", "_"):
            needle = needle.replace(special, f"!{special}")
        pattern = f"%{needle}%"
        if self._engine.dialect.name == "postgresql":
            return _ROW.document.ilike(pattern, escape="!")
        # SQLite's LIKE ignores the case of ASCII letters by itself.
        return _ROW.document.like(pattern, escape="!")

    def _found(self, query: sa.Select[Any]) -> list[Found]:
        return [
            Found(
                row.id,
                row.first_time,
                row.last_time,
                row._mapping["count"],
                row.replica,
                row.sequence,
                orjson.loads(row.document),
            )
            for row in self._rows(query)
        ]

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise AuditError(f"the audit's database cannot be read: {why(error)}") from error


def _day(number: int | None) -> str:
    return rfc3339(number * DAY)[:10] if number is not None else ""

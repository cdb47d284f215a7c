"""Reading the audit: lists, one decision, sums. Nothing here writes."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from webhook.audit import schema
from webhook.audit.database import VERSION, VERSION_TABLE, engine_of, why
from webhook.audit.errors import AuditError
from webhook.audit.record import rfc3339
from webhook.audit.results import Cursor, Filter, Found, Page, Stats, Sum
from webhook.audit.schema import ALL_DAYS, key, storable
from webhook.audit.store import DAY, LABEL, RULE, SPAN, VM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

MOST_ON_A_PAGE = 1000
LONGEST_SOUGHT = 1_000
TEXT_WINDOW = 10_000
"""Records that one query looks through for a text: no index holds what stands in documents."""
TEXT_SECONDS = 0.1
"""It ends earlier when so much time is over: some documents are 500 times as long as others."""
TEXT_BUFFER = 100
"""Records that PostgreSQL looks through before it answers, after which the time is read."""
LIST_SECONDS = 10.0
EXPORT_BATCH = 1000
_ROW = schema.record.c


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
        with self._connected() as connection:
            there = sa.inspect(connection).has_table(VERSION_TABLE)
            version = connection.scalar(sa.select(table.c.version_num)) if there else None
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

        A text is looked for in the next ``TEXT_WINDOW`` records only, for ``TEXT_SECONDS``: there
        may be few or none on a page that is not the last.

        Raises:
            AuditError: The database cannot be read, or the text is too long to be looked for.
        """
        most = min(limit, MOST_ON_A_PAGE)
        if wanted.text:
            return self._page_with_text(wanted, most, after)
        found = self._found(self._newest_first(wanted, _ROW, after).limit(most))
        return Page(found, found[-1].cursor if len(found) == most else None)

    def _page_with_text(self, wanted: Filter, most: int, after: Cursor | None) -> Page:
        """Look for a text in one record after the other, until there is enough or time is up."""
        document = sa.case((self._holds(wanted.text), _ROW.document)).label(_ROW.document.name)
        columns = [column for column in _ROW if column is not _ROW.document]
        query = self._newest_first(wanted, [*columns, document], after).limit(TEXT_WINDOW)
        end = monotonic() + TEXT_SECONDS
        found: list[Found] = []
        with self._connected() as connection:
            connection.execution_options(stream_results=True, max_row_buffer=TEXT_BUFFER)
            with connection.execute(query) as rows:
                for number, row in enumerate(rows, 1):
                    if row.document is not None:
                        found.append(Found.of(row))
                    if len(found) == most or number == TEXT_WINDOW or monotonic() >= end:
                        return Page(found, Cursor(row.last_time, row.id))
        return Page(found, None)

    def _newest_first(
        self, wanted: Filter, columns: Iterable[sa.ColumnElement[Any]], after: Cursor | None
    ) -> sa.CompoundSelect[Any]:
        """Return a query for all but the text, from behind a place on."""
        conditions = _conditions(wanted)
        if after is not None:
            conditions.append(sa.tuple_(_ROW.last_time, _ROW.id) < sa.tuple_(*after))
        parts: list[sa.ColumnElement[bool]] = [sa.true()]
        if wanted.node:
            parts = [*_of_node(wanted.node)]
            # For OR, SQLite would sort all that the node has; it merges two ordered lists as it
            # goes. With PostgreSQL it is the other way round.
            if self._engine.dialect.name == "postgresql":
                parts = [sa.or_(*parts)]
        listed = list(columns)
        lists = (sa.select(*listed).where(*conditions, part) for part in parts)
        return sa.union_all(*lists).order_by(sa.desc(_ROW.last_time.name), sa.desc(_ROW.id.name))

    def news(self, wanted: Filter, seen: Cursor) -> list[Found]:
        """Return what came or was repeated after a row, oldest first."""
        query = sa.select(schema.record).where(
            *_conditions(wanted),
            sa.or_(_ROW.last_time > seen.last_time, _ROW.id > seen.row_id),
        )
        if wanted.node:
            query = query.where(sa.or_(*_of_node(wanted.node)))
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
        """Return as many records as are wanted, if there are.

        Page after page is read, for ``LIST_SECONDS``; then there may be few or none although the
        list goes on.

        Raises:
            AuditError: As :meth:`page`.
        """
        end = monotonic() + LIST_SECONDS
        found: list[Found] = []
        while True:
            page = self.page(wanted, limit - len(found), after)
            found += page.found
            after = page.behind
            if after is None or len(found) == limit or monotonic() >= end:
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

    def _holds(self, text: str) -> sa.ColumnElement[bool]:
        """Match a text as it stands in a JSON document."""
        if len(text) > LONGEST_SOUGHT:
            raise AuditError(f"a text of at most {LONGEST_SOUGHT:,} characters can be looked for")
        needle = orjson.dumps(storable(text)).decode()[1:-1]
        for special in ("!", "%", "_"):
            needle = needle.replace(special, f"!{special}")
        pattern = f"%{needle}%"
        if self._engine.dialect.name == "postgresql":
            # Of ASCII letters only, as in SQLite; it is quicker than by the rules of a language.
            return _ROW.document.collate("C").ilike(pattern, escape="!")
        # SQLite's LIKE ignores the case of ASCII letters by itself.
        return _ROW.document.like(pattern, escape="!")

    def _found(self, query: sa.Executable) -> list[Found]:
        return [Found.of(row) for row in self._rows(query)]

    def _rows(self, query: sa.Executable) -> Sequence[sa.Row[Any]]:
        with self._connected() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise AuditError(f"the audit's database cannot be read: {why(error)}") from error


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """Return all that one index can help with: neither the text nor the node."""
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
    return found


def _of_node(node: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return conditions, of which every record of a node meets exactly one."""
    name = key(node)
    return _ROW.node == name, sa.and_(_ROW.chosen_node == name, _ROW.node != name)


def _day(number: int | None) -> str:
    return rfc3339(number * DAY)[:10] if number is not None else ""

"""Reading the audit: lists, one decision, sums. Nothing here writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from webhook.audit import schema
from webhook.audit.conditions import anything, begun, conditions, times, within
from webhook.audit.database import VERSION, VERSION_TABLE, engine_of, why_unread
from webhook.audit.errors import AuditError
from webhook.audit.record import rfc3339
from webhook.audit.results import Cursor, Filter, Found, Page, Stats, Sum
from webhook.audit.schema import ALL_DAYS, key, storable
from webhook.audit.store import DAY, LABEL, MICROSECONDS, RULE, VM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from webhook.audit.conditions import Condition

MOST_ON_A_PAGE = 1000
LONGEST_SOUGHT = 1_000
WINDOW = 10_000
"""Records that one query looks at where no single index leads to all that is asked for: several
conditions, or a text, which stands in documents alone."""
WINDOW_SECONDS = 0.1
"""It ends earlier when so much time is over: some documents are 500 times as long as others."""
BUFFER = 100
"""Records that PostgreSQL looks at before it answers, after which the time is read."""
LIST_SECONDS = 10.0
EXPORT_BATCH = 1000
_ROW = schema.record.c


class _Span(NamedTuple):
    """Days, in order, whose sums are added, or with the sign -1 taken away."""

    days: Sequence[int]
    sign: int


class Reader:
    """Reads one database."""

    def __init__(self, url: URL) -> None:
        """Connect.

        Raises:
            AuditError: There is no audit, or one of another version.
        """
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise AuditError(f"{url.database}: there is no audit yet")
        self._url = url
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

        Several conditions, or a text, are looked for in the next ``WINDOW`` records that meet the
        rarest condition only, for ``WINDOW_SECONDS``: there may be few or none on a page that is
        not the last.

        Raises:
            AuditError: The database cannot be read, or the text is too long to be looked for.
        """
        most = min(limit, MOST_ON_A_PAGE)
        listed = conditions(wanted)
        if wanted.text or len(listed) > 1:
            return self._sought(wanted, listed, most, after)
        (condition,) = listed or [anything]
        where = [*times(wanted, after), *begun(wanted)]
        found = self._found(self._newest_first(condition, _ROW, where).limit(most))
        return Page(found, found[-1].cursor if len(found) == most else None)

    def _sought(
        self, wanted: Filter, listed: Sequence[Condition], most: int, after: Cursor | None
    ) -> Page:
        """Look at one record after the other, until there are enough or time is up.

        What is looked at is in indexes, so far as there are some; records are read that meet all.
        """
        where = times(wanted, after)
        ids: list[int] = []
        behind: Cursor | None = None
        end = monotonic() + WINDOW_SECONDS
        with self._connected() as connection:
            first, *others = self._rarest_first(connection, listed, where) or [anything]
            meets = [*(within(other) for other in others), *begun(wanted)]
            meets += [self._holds(wanted.text)] if wanted.text else []
            met = sa.case((sa.and_(*meets), 1)).label("met")
            query = self._newest_first(first, (_ROW.last_time, _ROW.id, met), where).limit(WINDOW)
            streamed = connection.execution_options(stream_results=True, max_row_buffer=BUFFER)
            with streamed.execute(query) as rows:
                for number, row in enumerate(rows, 1):
                    if row.met:
                        ids.append(row.id)
                    if len(ids) == most or number == WINDOW or monotonic() >= end:
                        behind = Cursor(row.last_time, row.id)
                        break
        return Page(self._of_ids(ids)[::-1], behind)

    def _rarest_first(
        self,
        connection: Connection,
        listed: Sequence[Condition],
        where: Sequence[sa.ColumnElement[bool]],
    ) -> list[Condition]:
        """Sort conditions by how many records meet them; more than ``WINDOW`` are all alike."""
        if len(listed) < 2:
            return list(listed)

        def number(condition: Condition) -> int:
            counted = 0
            for part in condition(_ROW):
                some = sa.select(sa.literal(1)).where(*where, part).limit(WINDOW - counted)
                query = sa.select(sa.func.count()).select_from(some.subquery())
                counted += connection.execute(query).scalar_one()
            return counted

        return sorted(listed, key=number)

    def _newest_first(
        self,
        condition: Condition,
        columns: Iterable[sa.ColumnElement[Any]],
        where: Sequence[sa.ColumnElement[bool]],
    ) -> sa.CompoundSelect[Any]:
        """Return a query for all that meet a condition, and what else is asked for."""
        parts = condition(_ROW)
        # For OR, SQLite would sort all that there is; it merges ordered lists as it goes. With
        # PostgreSQL it is the other way round.
        if self._engine.dialect.name == "postgresql":
            parts = (sa.or_(*parts),)
        listed = list(columns)
        lists = (sa.select(*listed).where(*where, part) for part in parts)
        return sa.union_all(*lists).order_by(sa.desc(_ROW.last_time.name), sa.desc(_ROW.id.name))

    def changed(self, wanted: Filter, seen: Cursor) -> dict[int, int]:
        """Return the ids of rows that are newer than others, or were repeated later.

        Args:
            wanted: What they meet.
            seen: A row id, and a time; either may be passed.

        Returns:
            By row id, how often it was repeated.
        """
        found: dict[int, int] = {}
        where = [*times(wanted, None), *begun(wanted)]
        where += [sa.or_(*condition(_ROW)) for condition in conditions(wanted)]
        where += [self._holds(wanted.text)] if wanted.text else []
        # In what is selected, since as a condition it may lead to all that a user ever did.
        met = sa.case((sa.and_(sa.true(), *where), 1)).label("met")
        # One after the other, each by its own index; for OR, all of the time's would be read.
        for newer in (_ROW.id > seen.row_id, _ROW.last_time > seen.last_time):
            query = sa.select(_ROW.id, _ROW["count"].label("number"), met).where(newer)
            for row in self._rows(query):
                if row.met:
                    found[row.id] = max(row.number, found.get(row.id, 0))
        return found

    def records(self, ids: Sequence[int]) -> Iterator[Found]:
        """Yield rows by their ids, oldest first within each thousand."""
        for start in range(0, len(ids), MOST_ON_A_PAGE):
            yield from self._of_ids(ids[start : start + MOST_ON_A_PAGE])

    def _of_ids(self, ids: Sequence[int]) -> list[Found]:
        if not ids:
            return []
        query = sa.select(schema.record).where(_ROW.id.in_(ids))
        return self._found(query.order_by(_ROW.last_time, _ROW.id))

    def newest(self) -> Cursor:
        """Return the newest time and the newest row there are; zeros where there is none.

        A time that is yet to come is not the newest: a wrong clock must not hide what is.
        """
        # Each by its index; of two in one query SQLite reads all that there is.
        time_of, id_of = (
            sa.select(sa.func.max(c)).scalar_subquery() for c in (_ROW.last_time, _ROW.id)
        )
        query = sa.select(
            sa.func.coalesce(time_of, 0).label("time"), sa.func.coalesce(id_of, 0).label("id")
        )
        newest = self._rows(query)[0]
        return Cursor(min(newest.time, int(time() * MICROSECONDS)), newest.id)

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
        spans = self._spans(first, last)
        return Stats(
            _day(first),
            _day(last),
            *(self._sums(dimension, spans, most) for dimension in (RULE, VM, LABEL)),
        )

    def _spans(self, first: int | None, last: int | None) -> list[_Span]:
        """Return the days to add up, or, where those are fewer, the sum of all and which to leave.

        The sums of a day are as many as it has VMs: half of all days are the most that is read.
        """
        table = schema.count.c
        query = sa.select(table.day).where(table.dimension == RULE, table.day >= 0)
        known = [row.day for row in self._rows(query.distinct().order_by(table.day))]
        start = bisect_left(known, first) if first is not None else 0
        end = bisect_right(known, last) if last is not None else len(known)
        inside, outside = known[start:end], (known[:start], known[end:])
        if len(inside) <= sum(map(len, outside)):
            spans = [_Span(inside, 1)]
        else:
            spans = [_Span((ALL_DAYS,), 1), *(_Span(days, -1) for days in outside)]
        return [span for span in spans if span.days]

    def _sums(self, dimension: str, spans: Sequence[_Span], most: int) -> tuple[Sum, ...]:
        if not spans:
            return ()
        table = schema.count.c
        signed = sa.union_all(
            *(
                sa.select(
                    table.value, (table.decisions * sa.literal_column(str(sign))).label("decisions")
                ).where(
                    table.dimension == dimension,
                    table.day.between(days[0], days[-1]),
                    table.value != "",
                )
                for days, sign in spans
            )
        ).subquery()
        decisions = sa.func.sum(signed.c.decisions)
        query = (
            sa.select(signed.c.value)
            .group_by(signed.c.value)
            .having(decisions > 0)
            .order_by(decisions.desc(), signed.c.value)
            .limit(most)
        )
        top = [row.value for row in self._rows(query)]
        return self._told(dimension, spans, top)

    def _told(self, dimension: str, spans: Sequence[_Span], top: Sequence[str]) -> tuple[Sum, ...]:
        """Return the sums of some values, by outcome."""
        table = schema.count.c
        outcomes: dict[str, Counter[str]] = {value: Counter() for value in top}
        records: Counter[str] = Counter()
        for days, sign in spans:
            # Day by day and value by value: by a range of days, all of its values would be read.
            query = (
                sa.select(
                    table.value,
                    table.outcome,
                    sa.func.sum(table.decisions).label("decisions"),
                    sa.func.sum(table.records).label("records"),
                )
                .where(
                    table.dimension == dimension,
                    table.day.in_(days),
                    table.value.in_(top),
                )
                .group_by(table.value, table.outcome)
            )
            for row in self._rows(query):
                outcomes[row.value][row.outcome] += sign * int(row.decisions)
                records[row.value] += sign * int(row.records)
        return tuple(
            Sum(value, found.total(), records[value], {o: n for o, n in sorted(found.items()) if n})
            for value, found in outcomes.items()
        )

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
            reason = why_unread(self._url, error)
            raise AuditError(f"the audit's database cannot be read: {reason}") from error


def _day(number: int | None) -> str:
    return rfc3339(number * DAY)[:10] if number is not None else ""

"""Following the audit: what comes, and what is repeated, each once."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from webhook.audit.results import Cursor
from webhook.audit.store import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.audit.queries import Reader
    from webhook.audit.results import Filter, Found

LATE_SECONDS = 30.0
"""How much later than others a row may be seen. PostgreSQL numbers rows when they are written and
shows them when they are committed, and replicas do not ship at the same time."""
LATE_ROWS = 1_000
"""How many rows the newest may be ahead of one that is not committed when following begins: two
batches of a replica."""


class _Mark(NamedTuple):
    """The newest time and row at a moment of the monotonic clock."""

    moment: float
    newest: Cursor


class Follower:
    """Finds what is new to whoever asks again and again."""

    def __init__(self, reader: Reader, wanted: Filter) -> None:
        """Begin: what is there already is not new.

        Raises:
            AuditError: The database cannot be read.
        """
        self._reader = reader
        self._wanted = wanted
        newest = reader.newest()
        late = int(LATE_SECONDS * MICROSECONDS)
        first = Cursor(newest.last_time - late, max(newest.row_id - LATE_ROWS, 0))
        now = time.monotonic()
        self._marks = deque((_Mark(now - LATE_SECONDS, first), _Mark(now, newest)))
        self._seen = reader.changed(wanted, first)

    def note(self, found: Iterable[Found]) -> None:
        """Note what was told otherwise."""
        self._seen.update({one.row_id: one.count for one in found})

    def news(self) -> Iterator[Found]:
        """Yield what came or was repeated since the last call, the oldest first.

        Raises:
            AuditError: The database cannot be read.
        """
        now = time.monotonic()
        self._marks.append(_Mark(now, self._reader.newest()))
        while len(self._marks) > 1 and self._marks[1].moment <= now - LATE_SECONDS:
            self._marks.popleft()
        there = self._reader.changed(self._wanted, self._marks[0].newest)
        new = [row_id for row_id, count in there.items() if self._seen.get(row_id, 0) < count]
        # What is older than the marks is not looked at again, unless it is repeated.
        self._seen = there
        yield from self._reader.records(sorted(new))

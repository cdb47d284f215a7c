"""Events on their way to the API server: folded, at a bounded rate, and never in a review's way."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from webhook.audit.events import Event, events_of, seconds
from webhook.cluster.connection import JSON, MERGE_PATCH
from webhook.cluster.errors import RequestFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.audit.record import Record

MOST_PENDING = 1000
"""Different Events that are remembered at once, written or not."""
REPEAT_SECONDS = 20.0
"""What repeats itself is counted here and written no more often than this."""
PER_SECOND = 10.0
BURST = 50
"""Of writes to the API server, in all."""
GIVE_UP_SECONDS = 600.0
STOP_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class Dropped(StrEnum):
    """Why an Event was not written.

    Attributes:
        FULL: Too many different ones wait.
        REFUSED: The API server refused it: no right to write it, or its namespace is gone.
        FAILED: The API server could not be asked for ten minutes.
    """

    FULL = "full"
    REFUSED = "refused"
    FAILED = "failed"


class Cluster(Protocol):
    """What is needed of :class:`webhook.cluster.connection.Connection`."""

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""

    def send(self, method: str, path: str, body: object, content_type: str = JSON) -> Any:
        """Write JSON to a path."""


@dataclass(slots=True)
class _Told:
    """An Event, and how often it happened since it was last written."""

    event: Event
    first: int
    last: int
    unwritten: int
    due: float
    since: float
    pause: float = _FIRST_PAUSE


class EventRecorder:
    """Writes Events from a thread of its own.

    Identical decisions make one Event with a count, also those of several replicas. What cannot be
    written is tried again with growing pauses, and given up after ten minutes; more different
    Events than fit are dropped. Both are counted.
    """

    def __init__(
        self,
        cluster: Cluster,
        instance: str,
        on_dropped: Callable[[Dropped], None] = lambda reason: None,
    ) -> None:
        """Take the cluster; :meth:`start` begins to write.

        Args:
            cluster: Where Events are written.
            instance: The name of this replica.
            on_dropped: Is told of each Event that is dropped, from any thread. It must not raise.
        """
        self._cluster = cluster
        self._instance = instance
        self._on_dropped = on_dropped
        self._told: dict[str, _Told] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._tokens, self._filled = float(BURST), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is waiting, for two seconds at most, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(STOP_SECONDS)

    def tell(self, record: Record) -> None:
        """Take a decision; it is written later."""
        events = events_of(record)
        if not events:
            return
        with self._changed:
            for event in events:
                self._take(event, record.time)
            self._changed.notify()

    def _take(self, event: Event, at: int) -> None:
        known = self._told.get(event.name)
        if known is not None:
            known.unwritten += 1
            known.last = max(known.last, at)
            if known.unwritten == 1:
                known.first, known.since = at, time.monotonic()
            return
        if len(self._told) >= MOST_PENDING:
            self._forget_written()
        if len(self._told) >= MOST_PENDING:
            self._on_dropped(Dropped.FULL)
            return
        now = time.monotonic()
        self._told[event.name] = _Told(event, at, at, 1, due=now, since=now)

    def _forget_written(self) -> None:
        now = time.monotonic()
        for name in [n for n, t in self._told.items() if not t.unwritten and t.due <= now]:
            del self._told[name]

    def _run(self) -> None:
        while (told := self._next()) is not None:
            self._write(told)

    def _next(self) -> _Told | None:
        """Wait for an Event that is due and may be written; None at the end."""
        with self._changed:
            while True:
                waiting = [t for t in self._told.values() if t.unwritten]
                if self._stopping and not waiting:
                    return None
                first = min(waiting, key=lambda t: t.due, default=None)
                wait = None if first is None else self._wait_for(first)
                if first is not None and (wait is None or wait <= 0):
                    self._tokens -= 1
                    return first
                self._changed.wait(wait)

    def _wait_for(self, told: _Told) -> float:
        """Return for how many seconds an Event must wait yet."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._filled) * PER_SECOND)
        self._filled = now
        until_token = 0.0 if self._tokens >= 1 else (1 - self._tokens) / PER_SECOND
        # At the end there is no other time to write it.
        until_due = 0.0 if self._stopping else told.due - now
        return max(until_token, until_due)

    def _write(self, told: _Told) -> None:
        with self._changed:
            count, told.unwritten = told.unwritten, 0
            last = told.last
        reason: Dropped | None = None
        try:
            self._put(told, count, last)
        except RequestFailed as error:
            refused = error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
            reason = Dropped.REFUSED if refused else Dropped.FAILED
        with self._changed:
            now = time.monotonic()
            if reason is None:
                told.due, told.pause = now + REPEAT_SECONDS, _FIRST_PAUSE
            elif self._stopping or now - told.since > GIVE_UP_SECONDS:
                self._told.pop(told.event.name, None)
                self._on_dropped(reason)
            else:
                told.unwritten += count
                # Replicas that failed together are not to come back together.
                told.due = now + told.pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                told.pause = min(told.pause * 2, _LONGEST_PAUSE)

    def _put(self, told: _Told, count: int, last: int) -> None:
        event = told.event
        folder = f"/api/v1/namespaces/{quote(event.namespace, safe='')}/events"
        path = f"{folder}/{quote(event.name, safe='')}"
        try:
            standing = self._cluster.get(path)
        except RequestFailed as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            made = event.to_object(count, told.first, last, self._instance)
            self._cluster.send("POST", folder, made)
            return
        before = standing.get("count")
        total = count + (before if isinstance(before, int) else 0)
        more = {"count": total, "lastTimestamp": seconds(last), "message": event.message}
        self._cluster.send("PATCH", path, more, MERGE_PATCH)

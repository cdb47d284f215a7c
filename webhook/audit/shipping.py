"""Carrying records from the spool into the database, in order, for as long as it takes."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from sqlalchemy.exc import DataError

from webhook.audit import retention as keeping
from webhook.audit.database import engine_of, migrate, why
from webhook.audit.record import decode
from webhook.audit.store import MICROSECONDS, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL

    from webhook.audit.retention import Retention
    from webhook.audit.segments import Frame
    from webhook.audit.spool import Spool

BATCH = 500
BATCH_BYTES = 4 * 1024 * 1024
IDLE_SECONDS = 0.5
"""Between two batches, unless more than one is waiting: each is a sync of the database, and where
that shares a disk with the spool, refusals wait for it too."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
RETENTION_SECONDS = 600.0
DRAIN_SECONDS = 2.0
TELL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ShippingStatus:
    """How the way to the database is.

    Attributes:
        shipped: Records that were written into the database since the start. What it had already
            does not count, nor what it did not take; after a commit that was cut off nobody knows
            which of the two it was, and it does not count either.
        failure: Why it does not take any now; "" where it does.
        failing_since: Since when, in seconds since 1970; None where it does.
        lag: Seconds since the oldest record that is under way was made; 0 where none is.
    """

    shipped: int
    failure: str
    failing_since: float | None
    lag: float


class Shipper:
    """Ships from one spool to one database, in a thread of its own."""

    def __init__(
        self,
        spool: Spool,
        url: URL,
        retention: Retention,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is shipped where.

        Args:
            spool: Where records come from.
            url: The database.
            retention: How long they stay there.
            tell: Called when shipping begins, fails and works again, and every few seconds. It
                must not raise.
        """
        self._spool = spool
        self._url = url
        self._retention = retention
        self._tell = tell
        self._batch: list[Frame] = []
        self._shipped = 0
        self._failure = ""
        self._failing_since: float | None = None
        self._told_at = -TELL_SECONDS
        self._stopping = threading.Event()
        self._ends = 0.0
        self._thread = threading.Thread(target=self._run, name="audit-shipping", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """Ship what is there, for two seconds at most, and end."""
        self._ends = time.monotonic() + DRAIN_SECONDS
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(DRAIN_SECONDS + 1)

    def status(self) -> ShippingStatus:
        """Return the state of this moment."""
        batch = self._batch
        lag = 0.0
        if batch:
            try:
                lag = max(0.0, time.time() - decode(batch[0].payload).time / MICROSECONDS)
            except ValueError:
                # It is no record, and about to be rejected.
                lag = 0.0
        return ShippingStatus(self._shipped, self._failure, self._failing_since, lag)

    def _run(self) -> None:
        engine = engine_of(self._url)
        pause, ready, retained = FIRST_PAUSE, False, 0.0
        try:
            while not self._stopping.is_set() or time.monotonic() < self._ends:
                # Before a batch is taken: what came into the spool since is in none yet.
                stopping = self._stopping.is_set()
                try:
                    if not ready:
                        migrate(engine)
                        ready = True
                    idle = not self._ship_batch(Store(engine))
                    self._works()
                    pause = FIRST_PAUSE
                    if time.monotonic() >= retained and not self._stopping.is_set():
                        more = keeping.apply(engine, self._retention, time.time())
                        retained = time.monotonic() + (0.0 if more else RETENTION_SECONDS)
                except Exception as error:
                    # Whatever it is: records wait, somebody is told, and it is tried again.
                    self._fails(error)
                    # With jitter, so that replicas do not come back all at once.
                    self._stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                    pause = min(pause * 2, LONGEST_PAUSE)
                    if self._stopping.is_set():
                        return
                else:
                    if idle and stopping:
                        return
                    if idle:
                        self._stopping.wait(IDLE_SECONDS)
        finally:
            engine.dispose()

    def _ship_batch(self, store: Store) -> bool:
        """Ship what there is, one batch at most; tell whether it was a full one."""
        if not self._batch:
            self._batch = self._spool.take(BATCH, BATCH_BYTES)
        if not self._batch:
            return False
        size = sum(len(frame.payload) for frame in self._batch)
        full = len(self._batch) >= BATCH or size >= BATCH_BYTES
        try:
            # What a former process left and what this one wrote may meet in one batch.
            for writer, frames in groupby(self._batch, key=attrgetter("writer")):
                self._shipped += store.write(writer, list(frames))
        except (DataError, ValueError):
            self._ship_one_by_one(store)
        self._spool.note_shipped(self._batch[-1].sequence, len(self._batch))
        self._batch = []
        return full

    def _ship_one_by_one(self, store: Store) -> None:
        """Find the record that the database does not take, and leave it out."""
        while self._batch:
            frame = self._batch[0]
            try:
                self._shipped += store.write(frame.writer, [frame])
            except (DataError, ValueError) as error:
                self._spool.reject(frame, why(error))
            if len(self._batch) == 1:
                return
            self._spool.note_shipped(frame.sequence, 1)
            self._batch = self._batch[1:]

    def _works(self) -> None:
        changed = bool(self._failure)
        self._failure, self._failing_since = "", None
        self._tell_if(changed)

    def _fails(self, error: Exception) -> None:
        failure = why(error)
        changed = failure != self._failure
        self._failure = failure
        self._failing_since = self._failing_since or time.time()
        self._tell_if(changed)

    def _tell_if(self, changed: bool) -> None:
        now = time.monotonic()
        if changed or now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self._tell()

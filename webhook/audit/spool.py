"""Records on local disk, from before a refusal is told until the database has them.

One thread writes and syncs. While a sync runs, what comes in waits together and shares the next
one: the event loop never waits for the disk, and many refusals cost one sync.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError
from webhook.audit.folder import locked, replica_name
from webhook.audit.importance import Importance
from webhook.audit.lanes import Lanes
from webhook.audit.loss import Loss, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from webhook.audit.segments import Frame

SYNC_SECONDS = 0.5
"""How long a record that no answer waits for may be written but not yet on disk."""
AGE_CHECK_SECONDS = 60.0
MOST_PENDING = 32 * 1024 * 1024
"""Bytes that wait in memory for the disk; half of it for what is not a refusal."""


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much is kept for a database that does not take it.

    Attributes:
        size: Bytes of all files together.
        age: Seconds.
    """

    size: int = 256 * 1024 * 1024
    age: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """The state of a spool.

    Attributes:
        size: Bytes on disk.
        waiting: Records that the database does not have yet.
        kept: Records written since the start, by importance.
        lost: Records lost since the start, by reason.
        lost_at: When the last one was lost, in seconds since 1970; None where none was.
        late: Refusals that were told before they were on disk, since the start.
        overdue: How many of those are not on disk now.
        overdue_since: When the first of these was told, in seconds since 1970.
        notices: What somebody should know of the folder, in words.
    """

    size: int
    waiting: int
    kept: Mapping[Importance, int]
    lost: Mapping[Reason, int]
    lost_at: float | None
    late: int = 0
    overdue: int = 0
    overdue_since: float | None = None
    notices: Sequence[str] = ()


@dataclass(slots=True)
class _Entry:
    """A record on its way to the disk; it ends once, kept or lost."""

    sequence: int
    payload: bytes
    importance: Importance
    future: Future[bool] | None
    ended: bool = False


class Spool:
    """Keeps records in a folder.

    Attributes:
        replica: The name of this folder, made once.
    """

    def __init__(
        self,
        folder: Path,
        limits: SpoolLimits | None = None,
        on_loss: Callable[[Loss], None] = lambda loss: None,
    ) -> None:
        """Open a folder, with what a former process left there.

        Args:
            folder: Made where it is missing.
            limits: How much is kept.
            on_loss: Is told of each record that is lost, from any thread. It must not raise.

        Raises:
            AuditError: The folder cannot be used, or another process uses it.
        """
        self._limits = limits or SpoolLimits()
        self._on_loss = on_loss
        self._kept: Counter[Importance] = Counter()
        self._lost: Counter[Reason] = Counter()
        self._lost_at: float | None = None
        self._late = 0
        self._overdue: dict[Future[bool], float] = {}
        self._writing: list[_Entry] = []
        self._pending: list[_Entry] = []
        self._pending_bytes = 0
        self._stopping = False
        self._wakeup = threading.Condition()
        self._files = threading.Lock()
        self._counting = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = locked(folder)
            self.replica = replica_name(folder)
            self._lanes = Lanes(folder, self.replica, largest=self._limits.size, lost=self._lose)
        except OSError as error:
            raise AuditError(f"{folder}: cannot keep the audit there: {error.strerror}") from error
        self._published = (self._lanes.size, self._lanes.waiting)
        # From the clock, so that a folder restored from a backup does not use a number again.
        self._sequence = max(self._lanes.last_written, time.time_ns() // 1000)
        self._synced_at = self._aged_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="audit-spool", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Write what waits and end; what comes later is lost. Records are still handed out.

        Args:
            seconds: How long the disk may take; what it has not taken by then counts as lost.
        """
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._thread.is_alive():
            with self._wakeup:
                left, self._pending = [*self._writing, *self._pending], []
            for entry in left:
                self._end(entry, Loss(Reason.STALLED, entry.payload, "the disk hangs"))

    def close(self) -> None:
        """Let go of the folder, once it is stopped; where the disk hangs the process's end does."""
        if not self._thread.is_alive():
            os.close(self._lock)

    def keep(self, payload: bytes, importance: Importance) -> Future[bool] | None:
        """Take a record; never waits for the disk.

        Returns:
            For a refusal, what becomes true once it is on disk, and false if it is lost; None for
            the rest, which is on disk within a second.
        """
        future: Future[bool] | None = Future() if importance is Importance.REFUSAL else None
        most = MOST_PENDING if importance is Importance.REFUSAL else MOST_PENDING // 2
        with self._wakeup:
            if self._stopping:
                reason = Reason.STOPPED
            elif self._pending_bytes + len(payload) > most:
                reason = Reason.STALLED
            else:
                self._sequence += 1
                self._pending.append(_Entry(self._sequence, payload, importance, future))
                self._pending_bytes += len(payload)
                self._wakeup.notify()
                return future
        self._lose(Loss(reason, payload))
        if future is not None:
            future.set_result(False)
        return future

    def take(self, most: int, most_bytes: int) -> list[Frame]:
        """Hand out the next records that are on disk, in order, each once.

        Raises:
            OSError: A file cannot be read.
        """
        with self._held():
            return self._lanes.take(most, most_bytes)

    def note_shipped(self, sequence: int, count: int) -> None:
        """Note that the database has ``count`` more of those that were handed out."""
        with self._held():
            self._lanes.note_shipped(sequence, count)

    def reject(self, frame: Frame, detail: str) -> None:
        """Count a record as lost that the database does not take, and keep it for a person."""
        name = f"{frame.sequence}-{frame.writer}.rejected"
        with self._files:
            refused = self._lanes.set_aside(name, frame.payload)
        where = f"not set aside: {refused}" if refused else f"set aside in {name}"
        self._lose(Loss(Reason.REJECTED, frame.payload, f"{detail}; {where}"))

    def note_late(self, future: Future[bool]) -> bool:
        """Note that a refusal was told before it was on disk; return whether that is so."""
        if future.done():
            return False
        self._overdue[future] = time.time()
        with self._counting:
            self._late += 1
        future.add_done_callback(self._overdue.pop)
        return True

    def status(self) -> SpoolStatus:
        """Return the state of this moment; it waits for no disk."""
        overdue = list(self._overdue.values())
        with self._counting:
            return SpoolStatus(
                *self._published,
                dict(self._kept),
                dict(self._lost),
                self._lost_at,
                self._late,
                len(overdue),
                min(overdue, default=None),
                tuple(self._lanes.notices),
            )

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the files, and then publish what they hold: whoever asks must not wait for them."""
        with self._files:
            try:
                yield
            finally:
                self._published = (self._lanes.size, self._lanes.waiting)

    def _run(self) -> None:
        while True:
            with self._wakeup:
                self._wakeup.wait_for(lambda: self._pending or self._stopping, SYNC_SECONDS)
                batch, self._pending = self._pending, []
                self._writing = batch
                stopping = self._stopping
            try:
                self._keep_batch(batch, everything=stopping)
            except Exception as error:
                # A fault of our own must not end this thread: every later refusal would wait.
                for entry in batch:
                    detail = f"{type(error).__name__}: {error}"
                    self._end(entry, Loss(Reason.DISK_ERROR, entry.payload, detail))
            with self._wakeup:
                self._writing = []
                self._pending_bytes -= sum(len(entry.payload) for entry in batch)
            if stopping:
                with self._files:
                    self._lanes.close()
                return

    def _keep_batch(self, batch: Sequence[_Entry], *, everything: bool) -> None:
        now = time.monotonic()
        everything = everything or now - self._synced_at >= SYNC_SECONDS
        self._write_batch(batch)
        refuses = any(entry.importance is Importance.REFUSAL for entry in batch)
        for importance in Importance:
            if everything or (refuses and importance is Importance.REFUSAL):
                self._sync(importance, batch)
        for entry in batch:
            self._end(entry)
        if everything:
            self._synced_at = now
        if now - self._aged_at >= AGE_CHECK_SECONDS:
            self._aged_at = now
            with self._held(), contextlib.suppress(OSError):
                self._lanes.drop_before(time.time() - self._limits.age)

    def _write_batch(self, batch: Sequence[_Entry]) -> None:
        """Write records, what matters most first."""
        if not batch:
            return
        with self._files:
            # Until all lanes are written, none of these may be handed out: one that is written
            # late would be passed over.
            self._lanes.coming = batch[0].sequence
        try:
            for importance in sorted(Importance, reverse=True):
                # What a stop gave up while the disk hung is told as lost: it must not come back.
                self._write(
                    importance, [e for e in batch if e.importance is importance and not e.ended]
                )
        finally:
            with self._files:
                self._lanes.coming = None

    def _write(self, importance: Importance, entries: Sequence[_Entry]) -> None:
        """Write some records of one importance; those that cannot be are lost."""
        if not entries:
            return
        sequences = [entry.sequence for entry in entries]
        payloads = [entry.payload for entry in entries]
        with self._held():
            failure = self._lanes.write(importance, sequences, payloads)
        if failure is None:
            with self._counting:
                self._kept[importance] += len(entries)
        elif len(entries) > 1:
            # Together they do not fit; some of them may.
            for entry in entries:
                self._write(importance, (entry,))
        else:
            self._end(entries[0], Loss(failure.reason, payloads[0], failure.detail))

    def _sync(self, importance: Importance, batch: Sequence[_Entry]) -> None:
        """Sync a lane; what is not known to be on disk then is lost."""
        try:
            self._lanes.lane(importance).sync()
        except OSError as error:
            with self._held():
                forgotten, count = self._lanes.forget_unsynced(importance)
            lost = {frame.sequence: frame.payload for frame in forgotten}
            # Those of this batch are known, whatever the disk still says of them.
            mine = [e for e in batch if e.importance is importance and not e.ended]
            detail = error.strerror or str(error)
            for entry in mine:
                lost.pop(entry.sequence, None)
                self._end(entry, Loss(Reason.DISK_ERROR, entry.payload, detail))
            unread = [b""] * (count - len(mine) - len(lost))
            for payload in (*lost.values(), *unread):
                self._lose(Loss(Reason.DISK_ERROR, payload, detail))

    def _end(self, entry: _Entry, loss: Loss | None = None) -> None:
        """End a record as lost, or else as kept, unless it has ended before."""
        with self._counting:
            if entry.ended:
                return
            entry.ended = True
        if loss is not None:
            self._lose(loss)
        if entry.future is not None:
            entry.future.set_result(loss is None)

    def _lose(self, loss: Loss) -> None:
        with self._counting:
            self._lost[loss.reason] += 1
            self._lost_at = time.time()
        self._on_loss(loss)

"""Records on local disk, from before a refusal is told until the database has them.

One thread writes and syncs. While a sync runs, what comes in waits together and shares the next
one: the event loop never waits for the disk, and many refusals cost one sync.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError
from webhook.audit.importance import Importance
from webhook.audit.lanes import SUFFIX, Lanes
from webhook.audit.loss import Loss, Reason
from webhook.audit.record import Record, decode
from webhook.audit.segments import all_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from webhook.audit.segments import Frame

SYNC_SECONDS = 0.5
"""How long a record that no answer waits for may be written but not yet on disk."""
LOCK_SECONDS = 10.0
"""How long a new process waits for a former one to let go of the folder."""
AGE_CHECK_SECONDS = 60.0
MOST_PENDING = 32 * 1024 * 1024
"""Bytes that wait in memory for the disk; half of it for what is not a refusal."""

_LOCK = "lock"
_REPLICA = "replica"
_REPLICA_FORM = re.compile(r"[A-Za-z0-9.-]{1,80}")


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
    """

    size: int
    waiting: int
    kept: Mapping[Importance, int]
    lost: Mapping[Reason, int]
    lost_at: float | None


@dataclass(frozen=True, slots=True)
class _Entry:
    sequence: int
    payload: bytes
    importance: Importance
    future: Future[bool] | None


class Spool:
    """Keeps records in a folder.

    Attributes:
        replica: The name of this folder, made once; with a sequence number it names a record.
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
        self._pending: list[_Entry] = []
        self._pending_bytes = 0
        self._stopping = False
        self._wakeup = threading.Condition()
        self._files = threading.Lock()
        self._counting = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder)
            self.replica = _replica(folder)
            self._lanes = Lanes(folder, largest=self._limits.size, lost=self._lose)
        except OSError as error:
            raise AuditError(f"{folder}: cannot keep the audit there: {error.strerror}") from error
        # From the clock, so that a folder restored from a backup does not use a number again.
        self._sequence = max(self._lanes.last_written, time.time_ns() // 1000)
        self._synced_at = self._aged_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="audit-spool", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Write what waits and end; what comes later is lost. Records are still handed out."""
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def close(self) -> None:
        """Let go of the folder, once it is stopped."""
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
        with self._files:
            return self._lanes.take(most, most_bytes)

    def note_shipped(self, sequence: int, count: int) -> None:
        """Note that the database has ``count`` more of those that were handed out."""
        with self._files:
            self._lanes.note_shipped(sequence, count)

    def reject(self, payload: bytes, detail: str) -> None:
        """Count a record as lost that the database does not take."""
        self._lose(Loss(Reason.REJECTED, payload, detail))

    def status(self) -> SpoolStatus:
        """Return the state of this moment."""
        with self._files, self._counting:
            return SpoolStatus(
                self._lanes.size,
                self._lanes.waiting,
                dict(self._kept),
                dict(self._lost),
                self._lost_at,
            )

    def _run(self) -> None:
        while True:
            with self._wakeup:
                self._wakeup.wait_for(lambda: self._pending or self._stopping, SYNC_SECONDS)
                batch, self._pending = self._pending, []
                stopping = self._stopping
            try:
                self._keep_batch(batch, everything=stopping)
            except Exception as error:
                # A fault of our own must not end this thread: every later refusal would wait.
                self._give_up(batch, error)
            with self._wakeup:
                self._pending_bytes -= sum(len(entry.payload) for entry in batch)
            if stopping:
                with self._files:
                    self._lanes.close()
                return

    def _keep_batch(self, batch: Sequence[_Entry], *, everything: bool) -> None:
        now = time.monotonic()
        everything = everything or now - self._synced_at >= SYNC_SECONDS
        written = self._write_batch(batch)
        refuses = any(entry.importance is Importance.REFUSAL for entry in batch)
        for importance in Importance:
            if everything or (refuses and importance is Importance.REFUSAL):
                written.difference_update(self._sync(importance))
        for entry in batch:
            if entry.future is not None:
                entry.future.set_result(entry.sequence in written)
        if everything:
            self._synced_at = now
        if now - self._aged_at >= AGE_CHECK_SECONDS:
            self._aged_at = now
            with self._files, contextlib.suppress(OSError):
                self._lanes.drop_before(time.time() - self._limits.age)

    def _write_batch(self, batch: Sequence[_Entry]) -> set[int]:
        """Write records, what matters most first; return the sequence numbers of those written."""
        written: set[int] = set()
        if not batch:
            return written
        with self._files:
            # Until all lanes are written, none of these may be handed out: one that is written
            # late would be passed over.
            self._lanes.coming = batch[0].sequence
        try:
            for importance in sorted(Importance, reverse=True):
                alike = [entry for entry in batch if entry.importance is importance]
                written.update(self._write(importance, alike))
        finally:
            with self._files:
                self._lanes.coming = None
        return written

    def _give_up(self, batch: Sequence[_Entry], error: Exception) -> None:
        for entry in batch:
            if entry.future is None or not entry.future.done():
                detail = f"{type(error).__name__}: {error}"
                self._lose(Loss(Reason.DISK_ERROR, entry.payload, detail))
                if entry.future is not None:
                    entry.future.set_result(False)

    def _write(self, importance: Importance, entries: Sequence[_Entry]) -> list[int]:
        """Write some records of one importance; return the sequence numbers of those written."""
        if not entries:
            return []
        sequences = [entry.sequence for entry in entries]
        payloads = [entry.payload for entry in entries]
        with self._files:
            failure = self._lanes.write(importance, sequences, payloads)
        if failure is None:
            with self._counting:
                self._kept[importance] += len(entries)
            return sequences
        if len(entries) > 1:
            # Together they do not fit; some of them may.
            return [s for entry in entries for s in self._write(importance, (entry,))]
        self._lose(Loss(failure.reason, payloads[0], failure.detail))
        return []

    def _sync(self, importance: Importance) -> list[int]:
        """Sync a lane; return the sequence numbers of the records that are lost by that."""
        try:
            self._lanes.lane(importance).sync()
        except OSError as error:
            with self._files:
                forgotten = self._lanes.forget_unsynced(importance)
            for frame in forgotten:
                self._lose(Loss(Reason.DISK_ERROR, frame.payload, error.strerror or str(error)))
            return [frame.sequence for frame in forgotten]
        return []

    def _lose(self, loss: Loss) -> None:
        with self._counting:
            self._lost[loss.reason] += 1
            self._lost_at = time.time()
        self._on_loss(loss)


def waiting_records(folder: Path, decision: str) -> Iterator[tuple[str, int, Record]]:
    """Yield what a spool holds of a decision; a server may be using it meanwhile.

    Yields:
        The spool's name, the record's sequence number, and the record.

    Raises:
        AuditError: The folder cannot be read.
    """
    sought = decision.encode()
    if not (folder / _REPLICA).is_file():
        return
    try:
        name = (folder / _REPLICA).read_text(encoding="ascii", errors="replace").strip()
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):
                for frame in all_frames(path):
                    if sought not in frame.payload:
                        continue
                    record = decode(frame.payload)
                    if record.decision == decision:
                        yield name, frame.sequence, record
    except (OSError, ValueError) as error:
        raise AuditError(f"{folder}: the spool cannot be read: {error}") from error


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the folder's lock until the process ends."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(descriptor)
                raise AuditError(
                    f"{folder}: another process keeps its audit there; give each its own folder"
                ) from None
            time.sleep(0.1)
        else:
            return descriptor


def _replica(folder: Path) -> str:
    """Return the folder's name of its own, made at the first start."""
    path = folder / _REPLICA
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60]
        found = f"{host}-{uuid.uuid4().hex[:12]}"
        draft = path.with_suffix(".new")
        with draft.open("w", encoding="ascii") as file:
            file.write(found + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except UnicodeDecodeError:
        found = ""
    if not _REPLICA_FORM.fullmatch(found):
        raise AuditError(f"{path}: holds no name; restore it, or move the folder away")
    return found

"""The spool's files: a lane for each importance, so that what matters least can be dropped first.

Nothing here starts a thread or takes a lock; :mod:`webhook.audit.spool` does both.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from webhook.audit.importance import Importance
from webhook.audit.loss import Loss, Reason
from webhook.audit.segments import HEAD, Frame, Segment, framed, frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SUFFIX = ".log"
READ_BYTES = 256 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_Mark = tuple[int, int, int]


class Failure(NamedTuple):
    """Why records were not written."""

    reason: Reason
    detail: str


def reason_of(error: OSError) -> Reason:
    """Return what an error of the file system means for a record."""
    return Reason.DISK_FULL if error.errno in _NO_ROOM else Reason.DISK_ERROR


class Lane:
    """The files of one importance, oldest first; the last may be open for writing."""

    def __init__(self, folder: Path, importance: Importance) -> None:
        """Describe an empty lane."""
        self.importance = importance
        self.segments: deque[Segment] = deque()
        self._folder = folder
        self._descriptor: int | None = None
        self._synced: _Mark = (0, 0, 0)
        # Reading: the file that is read, how far, and what was read and not yet taken.
        self._reading: Segment | None = None
        self._offset = 0
        self._ahead: deque[Frame] = deque()

    @property
    def active(self) -> Segment | None:
        """The file that is open for writing."""
        return self.segments[-1] if self._descriptor is not None else None

    @property
    def unsynced_from(self) -> int | None:
        """The first sequence number that is written but perhaps not on disk."""
        active = self.active
        if active is None or active.size == self._synced[2]:
            return None
        return max(self._synced[0], active.first - 1) + 1

    def write(self, sequences: Sequence[int], payloads: Sequence[bytes], largest: int) -> None:
        """Append records, all or none of them.

        Raises:
            OSError: None of them is written.
        """
        active = self.active
        if active is not None and active.size >= largest and self.unsynced_from is None:
            self.close()
            active = None
        if active is None:
            active = self._open(sequences[0])
        parts = [framed(s, p) for s, p in zip(sequences, payloads, strict=True)]
        assert self._descriptor is not None  # noqa: S101 - _open has set it; told to mypy
        try:
            _write_all(self._descriptor, b"".join(parts))
        except OSError:
            os.ftruncate(self._descriptor, active.size)
            raise
        for sequence, part in zip(sequences, parts, strict=True):
            active.add(sequence, len(part))

    def _open(self, first: int) -> Segment:
        path = self._folder / f"{self.importance.name.lower()}-{first:020d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        _sync_folder(self._folder)
        segment = Segment(path, first)
        self.segments.append(segment)
        self._synced = (first - 1, 0, 0)
        return segment

    def sync(self) -> None:
        """Wait until what is written is on disk.

        Raises:
            OSError: It is not known what is; see :meth:`forget_unsynced`.
        """
        active = self.active
        if active is None or self.unsynced_from is None:
            return
        mark = (active.last, active.count, active.size)
        assert self._descriptor is not None  # noqa: S101 - there is an active file; told to mypy
        os.fdatasync(self._descriptor)
        self._synced = mark

    def forget_unsynced(self) -> list[Frame]:
        """Cut the file to what is known to be on disk, go on in another one; return the rest."""
        active = self.active
        if active is None:
            return []
        last, count, size = self._synced
        forgotten: list[Frame] = []
        with contextlib.suppress(OSError):
            forgotten = [frame for frame, _ in frames(active.path, size, active.size)]
        active.last, active.count, active.size = last, count, size
        self._ahead = deque(f for f in self._ahead if f.sequence <= last)
        self._reading = None
        with contextlib.suppress(OSError):
            # What cannot be cut stays behind the end that is known, and is not read.
            os.truncate(active.path, size)
        self.close()
        if not count:
            self.drop(active)
        return forgotten

    def close(self) -> None:
        """Close the file that is open for writing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def drop(self, segment: Segment) -> None:
        """Delete a file; one that is gone already counts as deleted."""
        if segment is self.active:
            self.close()
        self.segments.remove(segment)
        if self._ahead and self._ahead[-1].sequence >= segment.first:
            self._ahead = deque(f for f in self._ahead if f.sequence < segment.first)
            self._reading = None
        elif self._reading is segment:
            self._reading = None
        segment.path.unlink(missing_ok=True)

    def peek(self, taken: int) -> Frame | None:
        """Return the first record after a sequence number, None where there is none.

        Raises:
            OSError: A file cannot be read.
        """
        while self._ahead and self._ahead[0].sequence <= taken:
            self._ahead.popleft()
        if not self._ahead:
            self._read_ahead(taken)
        return self._ahead[0] if self._ahead else None

    def _read_ahead(self, taken: int) -> None:
        for segment in self.segments:
            if segment.last <= taken:
                continue
            if segment is not self._reading:
                self._reading, self._offset = segment, 0
            started = self._offset
            for frame, end in frames(segment.path, self._offset, segment.size):
                self._offset = end
                if frame.sequence > taken:
                    self._ahead.append(frame)
                if self._ahead and end - started >= READ_BYTES:
                    break
            return


class Lanes:
    """All lanes of a folder.

    The file with the newest record stays, so that a sequence number is never given twice, however
    the clock is set.

    Attributes:
        taken: The last sequence number that was handed out.
        shipped: The last sequence number that the database has.
        last_written: The last sequence number that was ever written.
        waiting: How many records the database does not have yet.
        coming: The first sequence number of those that are being written, lane after lane; None
            where none are.
    """

    def __init__(self, folder: Path, *, largest: int, lost: Callable[[Loss], None]) -> None:
        """Read what a former process left.

        Args:
            folder: Where the files are; it exists.
            largest: Bytes of all files together.
            lost: Is told of each record that is lost here.

        Raises:
            OSError: The folder cannot be read.
        """
        self._largest = largest
        self._largest_segment = max(64 * 1024, min(largest // 64, 4 * 1024 * 1024))
        self._lost = lost
        self._lanes = {i: Lane(folder, i) for i in Importance}
        self.taken = 0
        self.shipped = 0
        self.coming: int | None = None
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            name = path.stem.rpartition("-")[0].upper()
            if name in Importance.__members__:
                self._find(self._lanes[Importance[name]], path)
        self.last_written = max((s.last for s in self._segments()), default=0)
        self.waiting = sum(s.count for s in self._segments())

    def _find(self, lane: Lane, path: Path) -> None:
        segment = Segment.found(path)
        if segment.damaged:
            detail = f"{path}: {segment.damaged} bytes at the end are no record"
            self._lost(Loss(Reason.DAMAGED, b"", detail))
        if segment.count:
            lane.segments.append(segment)
        else:
            path.unlink()

    def _segments(self) -> Iterator[Segment]:
        return (segment for lane in self._lanes.values() for segment in lane.segments)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(segment.size for segment in self._segments())

    @property
    def durable(self) -> int:
        """The last sequence number up to which everything is on disk, or lost."""
        open_ends = [self.coming, *(lane.unsynced_from for lane in self._lanes.values())]
        return min([self.last_written, *(n - 1 for n in open_ends if n is not None)])

    def lane(self, importance: Importance) -> Lane:
        """Return a lane."""
        return self._lanes[importance]

    def write(
        self, importance: Importance, sequences: Sequence[int], payloads: Sequence[bytes]
    ) -> Failure | None:
        """Append records to a lane, all or none; what matters less gives way where room lacks."""
        need = sum(HEAD.size + len(payload) for payload in payloads)
        while self.size + need > self._largest:
            if not self._made_room(importance):
                return Failure(Reason.FULL, f"the spool holds {self.size} bytes")
        while True:
            try:
                self._lanes[importance].write(sequences, payloads, self._largest_segment)
            except OSError as error:
                reason = reason_of(error)
                if reason is Reason.DISK_FULL and self._made_room(importance):
                    continue
                return Failure(reason, error.strerror or str(error))
            self.last_written = max(self.last_written, sequences[-1])
            self.waiting += len(payloads)
            return None

    def _made_room(self, importance: Importance) -> bool:
        try:
            return self._make_room(importance)
        except OSError:
            # What can neither be read nor deleted makes no room.
            return False

    def _make_room(self, importance: Importance) -> bool:
        """Delete a file that is not needed, else the oldest of what matters least and less."""
        for lane in self._lanes.values():
            for segment in tuple(lane.segments):
                if segment.last <= self.shipped and segment.last != self.last_written:
                    lane.drop(segment)
                    return True
        for lower in sorted(i for i in self._lanes if i < importance):
            lane = self._lanes[lower]
            # What was handed out may be in the database already: it stays until that is known.
            oldest = next((s for s in lane.segments if s.first > self.taken), None)
            if oldest is not None:
                self._lose(lane, oldest, Reason.MADE_ROOM)
                return True
        return False

    def drop_before(self, moment: float) -> None:
        """Drop the files that were last written before a moment, in seconds since 1970.

        Raises:
            OSError: One of them cannot be read or deleted.
        """
        for lane in self._lanes.values():
            for segment in tuple(lane.segments):
                if segment.first <= self.taken or segment.path.stat().st_mtime >= moment:
                    break
                self._lose(lane, segment, Reason.AGE)

    def _lose(self, lane: Lane, segment: Segment, reason: Reason) -> None:
        found = [frame for frame, _ in frames(segment.path, 0, segment.size)]
        lane.drop(segment)
        self.waiting -= len(found)
        for frame in found:
            self._lost(Loss(reason, frame.payload))

    def take(self, most: int, most_bytes: int) -> list[Frame]:
        """Hand out the next records that are on disk, in order.

        Raises:
            OSError: A file cannot be read.
        """
        found: list[Frame] = []
        durable, size = self.durable, 0
        while len(found) < most and size < most_bytes:
            heads = [h for lane in self._lanes.values() if (h := lane.peek(self.taken))]
            first = min(heads, key=lambda frame: frame.sequence, default=None)
            if first is None or first.sequence > durable:
                break
            found.append(first)
            size += len(first.payload)
            self.taken = first.sequence
        return found

    def note_shipped(self, sequence: int, count: int) -> None:
        """Note that the database has so many records more, up to a sequence number."""
        self.shipped = sequence
        self.waiting -= count
        for lane in self._lanes.values():
            for segment in tuple(lane.segments):
                if segment.last > sequence or segment is lane.active:
                    break
                if segment.last != self.last_written:
                    lane.drop(segment)

    def forget_unsynced(self, importance: Importance) -> list[Frame]:
        """Give up what may not be on disk; return it."""
        forgotten = self._lanes[importance].forget_unsynced()
        self.waiting -= len(forgotten)
        return forgotten

    def close(self) -> None:
        """Close all files."""
        for lane in self._lanes.values():
            lane.close()


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The spool's files: a lane for each importance, so that what matters least can be dropped first.

Nothing here starts a thread or takes a lock; :mod:`webhook.audit.spool` does both.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from webhook.audit.importance import Importance
from webhook.audit.lane import Lane
from webhook.audit.loss import Loss, Reason
from webhook.audit.segments import HEAD, SUFFIX, Segment, damaged_payloads, new_writer
from webhook.audit.set_aside import SetAside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from webhook.audit.segments import Frame, Piece

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Failure(NamedTuple):
    """Why records were not written."""

    reason: Reason
    detail: str


def reason_of(error: OSError) -> Reason:
    """Return what an error of the file system means for a record."""
    return Reason.DISK_FULL if error.errno in _NO_ROOM else Reason.DISK_ERROR


class Lanes:
    """All lanes of a folder.

    The file with the newest record stays, so that a sequence number is never given twice, however
    the clock is set.

    Attributes:
        taken: The last sequence number that was handed out.
        shipped: The last sequence number that the database has.
        last_written: The last sequence number that was ever written.
        waiting: How many records the database does not have yet.
        notices: What somebody should know of the folder, in words.
        coming: The first sequence number of those that are being written, lane after lane; None
            where none are.
    """

    def __init__(
        self, folder: Path, replica: str, *, largest: int, lost: Callable[[Loss], None]
    ) -> None:
        """Read what a former process left.

        A folder that was copied brings its name along, so what is written from now on bears one of
        this process alone.

        Args:
            folder: Where the files are; it exists.
            replica: The folder's name.
            largest: Bytes of all files together.
            lost: Is told of each record that is lost here.

        Raises:
            OSError: The folder cannot be read.
        """
        self._largest = largest
        self._largest_segment = max(64 * 1024, min(largest // 64, 4 * 1024 * 1024))
        self._lost = lost
        self._aside = SetAside(folder)
        self.notices: list[str] = []
        writer = new_writer(replica)
        self._lanes = {i: Lane(folder, i, writer, self._damaged) for i in Importance}
        self.taken = 0
        self.shipped = 0
        self.waiting = 0
        self.coming: int | None = None
        for path in sorted(
            p for i in Importance for p in folder.glob(f"{i.name.lower()}-*{SUFFIX}")
        ):
            segment = Segment.named(path, replica)
            if segment is None:
                self.notices.append(f"{path}: no file of the spool, left alone; move it away")
            else:
                self._find(segment)
        self.notices += self._aside.notices()
        self.last_written = max((s.last for s in self._segments()), default=0)

    def _find(self, segment: Segment) -> None:
        damage = segment.find()
        segment.harmed.update(piece.start for piece in damage)
        aside = [self._tell_damage(segment, piece) for piece in damage]
        if segment.count:
            self._lanes[segment.importance].segments.append(segment)
            self.waiting += segment.count
        elif all(aside):
            segment.path.unlink()

    def _damaged(self, segment: Segment, piece: Piece) -> None:
        """Count what has become unreadable since the start, once."""
        if piece.start in segment.harmed:
            return
        segment.harmed.add(piece.start)
        lost = min(len(damaged_payloads(piece.rest)), segment.count)
        segment.count -= lost
        self.waiting -= lost
        self._tell_damage(segment, piece)

    def _tell_damage(self, segment: Segment, piece: Piece) -> bool:
        """Set a damaged part aside for a person; return whether that was done.

        What is there already was counted when it was found first.
        """
        name = f"{segment.path.stem}-{piece.start}.damaged"
        if self._aside.has(name):
            return True
        refused = self._aside.put(name, piece.rest)
        where = f"not set aside: {refused}" if refused else f"set aside in {name}"
        span = f"bytes {piece.start} to {piece.end} are no record, {where}"
        for payload in damaged_payloads(piece.rest):
            self._lost(Loss(Reason.DAMAGED, payload, f"{segment.path}: {span}"))
        return not refused

    def set_aside(self, name: str, content: bytes) -> str:
        """Keep bytes for a person in a file of their own; return why not, "" where it is done."""
        return self._aside.put(name, content)

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
                if segment.path.stat().st_mtime >= moment:
                    break
                # What was handed out may be in the database already; what stands behind it is not.
                if segment.first > self.taken:
                    self._lose(lane, segment, Reason.AGE)

    def _lose(self, lane: Lane, segment: Segment, reason: Reason) -> None:
        found = []
        for piece in segment.pieces():
            if piece.frame is not None:
                found.append(piece.frame)
            else:
                self._damaged(segment, piece)
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
        if all(segment.last <= sequence for segment in self._segments()):
            # Of what was damaged nobody may know how many it was.
            self.waiting = 0

    def forget_unsynced(self, importance: Importance) -> tuple[list[Frame], int]:
        """Give up what may not be on disk; return what of it can be read, and how many it is."""
        forgotten, count = self._lanes[importance].forget_unsynced()
        self.waiting -= count
        return forgotten, count

    def close(self) -> None:
        """Close all files."""
        for lane in self._lanes.values():
            lane.close()

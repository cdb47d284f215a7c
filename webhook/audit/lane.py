"""The files of one importance: written, synced, read and dropped.

Nothing here starts a thread or takes a lock; :mod:`webhook.audit.spool` does both.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING

from webhook.audit.segments import Segment, framed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from webhook.audit.importance import Importance
    from webhook.audit.segments import Frame, Piece

READ_BYTES = 256 * 1024
_Mark = tuple[int, int, int]


class Lane:
    """The files of one importance, oldest first; the last may be open for writing."""

    def __init__(
        self,
        folder: Path,
        importance: Importance,
        writer: str,
        on_damage: Callable[[Segment, Piece], None],
    ) -> None:
        """Describe an empty lane.

        Args:
            folder: Where its files are.
            importance: Of its records.
            writer: The name of this process.
            on_damage: Is told of what has become unreadable in a file of this lane.
        """
        self.importance = importance
        self.segments: deque[Segment] = deque()
        self._folder = folder
        self._writer = writer
        self._on_damage = on_damage
        self._folder_synced = True
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
            active.add(sequence, active.size + len(part))

    def _open(self, first: int) -> Segment:
        segment = Segment.new(self._folder, self.importance, first, self._writer)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(segment.path, flags, 0o600)
        self._folder_synced = False
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
        if not self._folder_synced:
            _sync_folder(self._folder)
            self._folder_synced = True
        os.fdatasync(self._descriptor)
        self._synced = mark

    def forget_unsynced(self) -> tuple[list[Frame], int]:
        """Cut the file to what is known to be on disk, and go on in another one.

        Returns:
            The rest, as far as it can be read, and how many records it is.
        """
        active = self.active
        if active is None:
            return [], 0
        last, count, size = self._synced
        forgotten: list[Frame] = []
        with contextlib.suppress(OSError):
            forgotten = [piece.frame for piece in active.pieces(size) if piece.frame is not None]
        given_up = active.count - count
        active.last, active.count, active.size = last, count, size
        self._ahead = deque(f for f in self._ahead if f.sequence <= last)
        self._reading = None
        with contextlib.suppress(OSError):
            # What cannot be cut stays behind the end that is known, and is not read.
            os.truncate(active.path, size)
        self.close()
        if not count:
            self.drop(active)
        return forgotten, given_up

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
            self._read(segment, taken)
            if self._ahead:
                return

    def _read(self, segment: Segment, taken: int) -> None:
        started, last = self._offset, taken
        harmed: Piece | None = None
        for piece in segment.pieces(started):
            if piece.frame is None:
                harmed = piece
                continue
            last = piece.frame.sequence
            self._offset = piece.end
            if last > taken:
                if harmed is not None:
                    self._on_damage(segment, harmed)
                self._ahead.append(piece.frame)
                if piece.end - started >= READ_BYTES:
                    return
            harmed = None
        if harmed is not None:
            self._on_damage(segment, harmed)
            # Nothing more comes of this file.
            segment.last = last


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

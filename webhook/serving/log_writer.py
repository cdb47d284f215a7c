"""What stands in for stderr while reviews are served: nobody waits for whoever reads it."""

from __future__ import annotations

import io
import os
import select
import threading
from collections import Counter, deque
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_WAITING = 8 * 1024 * 1024
"""Bytes of lines that wait in memory for a reader."""

MOST_ORDINARY = MOST_WAITING // 4
"""Of them, by ordinary lines; the rest is for records, which are nowhere else."""

GATHER_SECONDS = 0.01
"""How long a line that comes right after another waits, to be written with more: to wake a thread
costs more than to write a line."""

_AT_ONCE = 64 * 1024
_PATIENCE_MS = 100


class LineKind(StrEnum):
    """What a line of the log is."""

    RECORD = "record"
    """A record that the audit could not keep: the line is all that is left of it."""
    OTHER = "other"


class _Descriptor(io.TextIOBase):
    """What both streams below are: text for a file descriptor."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def isatty(self) -> bool:
        """Tell whether a terminal is written to."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self._descriptor

    def writable(self) -> bool:
        """Return true."""
        return True


class LogWriter(_Descriptor):
    """A stream of text whose lines a thread of its own writes to a file descriptor, in order.

    Lines that find no room are counted as lost; once all that waited is written, a line says how
    many. Safe to use from any thread.

    Attributes:
        count_lost: Called with the kind of each line that is lost, from any thread.
    """

    def __init__(self, descriptor: int) -> None:
        """Take what is written to; :meth:`start` begins to write."""
        super().__init__(descriptor)
        self.count_lost: Callable[[LineKind], None] = lambda kind: None
        self._lines: deque[tuple[bytes, LineKind]] = deque()
        self._waiting_bytes = 0
        # Lost, and not yet said.
        self._lost: Counter[LineKind] = Counter()
        # What each thread has written of a line that is not complete.
        self._begun: dict[int, str] = {}
        self._changed = threading.Condition()
        self._asleep = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Write what waits, and end; return whether that was done in so many seconds."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def write(self, text: str) -> int:
        """Take text; each whole line of it is written as one of the kind ``other``."""
        thread = threading.get_ident()
        whole = self._begun.pop(thread, "") + text if self._begun else text
        end = whole.rfind("\n") + 1
        if end < len(whole):
            self._begun[thread] = whole[end:]
        if end:
            self.write_line(whole[:end], LineKind.OTHER)
        return len(text)

    def write_line(self, line: str, kind: LineKind) -> None:
        """Take a whole line, with its line break; never waits."""
        data = line.encode(errors="backslashreplace")
        most = MOST_WAITING if kind is LineKind.RECORD else MOST_ORDINARY
        with self._changed:
            if self._waiting_bytes + len(data) <= most:
                self._lines.append((data, kind))
                self._waiting_bytes += len(data)
                if self._asleep:
                    self._asleep = False
                    self._changed.notify()
                return
        self._lose((kind,))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                while not self._lines and not self._stopping.is_set():
                    self._asleep = True
                    self._changed.wait()
            self._write_all()
            self._stopping.wait(GATHER_SECONDS)
        self._write_all()

    def _write_all(self) -> None:
        while lines := self._take():
            if not self._write(b"".join(data for data, _ in lines)):
                self._lose(kind for _, kind in lines)
        with self._changed:
            lost, self._lost = self._lost, Counter()
        if lost and not self._write(_told(lost)):
            with self._changed:
                self._lost += lost

    def _take(self) -> list[tuple[bytes, LineKind]]:
        """Return the next lines, some at a time: what still waits keeps its place and its kind."""
        taken: list[tuple[bytes, LineKind]] = []
        size = 0
        with self._changed:
            while self._lines and size < _AT_ONCE:
                taken.append(self._lines.popleft())
                size += len(taken[-1][0])
            self._waiting_bytes -= size
        return taken

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes; return false where that cannot be."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Whoever shares the pipe has made it so.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _lose(self, kinds: Iterable[LineKind]) -> None:
        for kind in kinds:
            with self._changed:
                self._lost[kind] += 1
            self.count_lost(kind)


class UnwaitingStream(_Descriptor):
    """A stream of text to a file descriptor that drops what nobody takes off it.

    For a process that has hardly anything to say, and other processes to look after.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write text, or drop it; what is written does not exceed what a pipe takes at once."""
        if self._poll.poll(_PATIENCE_MS):
            with suppress(OSError):
                os.write(
                    self._descriptor, text.encode(errors="backslashreplace")[: select.PIPE_BUF]
                )
        return len(text)


def _told(lost: Counter[LineKind]) -> bytes:
    records = lost[LineKind.RECORD]
    also = f" (records that the audit could not keep: {records})" if records else ""
    return (
        f"migration-guard: lost lines of the log: {lost.total()}{also}; it was not read, or could "
        "not be written\n"
    ).encode()

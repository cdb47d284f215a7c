"""Progress on stderr, for whatever takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType

QUIET_SECONDS = 1.0
TERMINAL_EVERY = 0.5
LINES_EVERY = 5.0
_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Says what is being done, and how far it has come, as long as the ``with`` block runs.

    Nothing is said in the first second. Then a terminal has one line that changes, anything else
    a plain line every five seconds. The work itself need not call anything: a thread keeps time.
    """

    def __init__(self, doing: str, unit: str = "objects", stream: TextIO | None = None) -> None:
        """Take what is done, such as "reading cluster.yaml", and what ``update`` counts."""
        self._doing = doing
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._count = 0
        self._said = False
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def update(self, count: int) -> None:
        """Set how many there are so far."""
        self._count = count

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._said and self._terminal:
            self._write(_CLEAR_LINE)

    def line(self) -> str:
        """Return the present state in words."""
        seconds = int(time.monotonic() - self._started)
        counted = f"{self._count:,} {self._unit}, " if self._count else ""
        return f"migration-guard: {self._doing}: {counted}{seconds} s"

    def _run(self) -> None:
        if self._over.wait(QUIET_SECONDS):
            return
        every = TERMINAL_EVERY if self._terminal else LINES_EVERY
        while True:
            line = self.line()
            self._write(f"{_CLEAR_LINE}{line} …" if self._terminal else f"{line}\n")
            self._said = True
            if self._over.wait(every):
                return

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Nobody reads stderr any more; the work goes on.
            self._over.set()

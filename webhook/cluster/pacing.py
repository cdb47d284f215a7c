"""Work that leaves room for reviews: one slice at a time, and a rest after each.

The interpreter runs one thread at a time. Whoever parses a big list on another thread than the
reviews' holds them up all the same, so all that follow the cluster take turns here.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

SLICE_SECONDS = 0.001
REST_SECONDS = 0.001


class Pacer:
    """A lock whose holder rests once it has worked for a millisecond in all."""

    __slots__ = ("_began", "_lock", "_worked")

    def __init__(self) -> None:
        """Begin rested."""
        self._lock = threading.Lock()
        self._worked = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._worked += time.perf_counter() - self._began
        try:
            if self._worked >= SLICE_SECONDS:
                self._worked = 0.0
                time.sleep(REST_SECONDS)
        finally:
            self._lock.release()

"""Which parts of the server are ready, and since when."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


REVIEWS = "reviews"
"""The part that answers reviews: the event loop."""

SIGN_OF_LIFE_SECONDS = 3.0
"""For so long a sign of life makes a part ready: several times as long as from one to the next, and
longer than a review may take."""


@dataclass(frozen=True, slots=True)
class _State:
    """The state of a part.

    Attributes:
        told: When it was told last.
        until: Until when it holds without a further sign of life, on the clock of
            ``time.monotonic``; None for ever.
    """

    ready: bool
    since: datetime
    detail: str
    told: datetime
    until: float | None = None

    def now(self) -> _State:
        """Return what has become of it."""
        if self.until is None or time.monotonic() < self.until:
            return self
        return _State(False, self.told, "no sign of life", self.told)


class Readiness:
    """The board on which every part reports its state; safe to use from any thread.

    Args:
        clock: Returns the present time, in UTC and with its time zone.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[str, _State] = {}

    def report(self, part: str, ready: bool, detail: str) -> None:
        """Set the state of a part.

        Args:
            part: Its name, such as ``configuration``.
            ready: Whether reviews can be answered as far as this part goes.
            detail: A few words on why, or on what there is; "" for none.
        """
        self._set(part, ready, detail, None)

    def sign_of_life(self, part: str) -> None:
        """Report a part as ready, for ``SIGN_OF_LIFE_SECONDS``."""
        self._set(part, True, "", time.monotonic() + SIGN_OF_LIFE_SECONDS)

    def _set(self, part: str, ready: bool, detail: str, until: float | None) -> None:
        told = self._clock()
        with self._lock:
            before = self._parts.get(part)
            before = before and before.now()
            since = before.since if before is not None and before.ready == ready else told
            self._parts[part] = _State(ready, since, detail, told, until)

    @property
    def ready(self) -> bool:
        """Whether every part is ready; false as long as none has reported."""
        with self._lock:
            return bool(self._parts) and all(state.now().ready for state in self._parts.values())

    def lines(self) -> list[str]:
        """Return one line for each part, by name: its state, since when, and the detail."""
        with self._lock:
            parts = sorted(self._parts.items())
        return [_line(part, state.now()) for part, state in parts]


def _line(part: str, state: _State) -> str:
    word = "ready" if state.ready else "not ready"
    # Python writes UTC as +00:00; Kubernetes writes it as Z.
    since = state.since.isoformat(timespec="seconds").replace("+00:00", "Z")
    detail = " ".join(state.detail.split())
    return f"{part}: {word} since {since}" + (f" ({detail})" if detail else "")

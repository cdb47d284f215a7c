"""Waiting until a decision is kept, but never longer than its reply may wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from webhook.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# The loop itself holds tasks by weak references only.
_unfinished: set[asyncio.Future[object]] = set()


class Waiting:
    """A reply that waits for its decision to be kept.

    What keeps it goes on when the time is over. A failure of it is logged, and ends the waiting.

    Args:
        kept: Ends when the decision is kept.
        seconds: For how long to wait at most; may be negative.
        then: Called once, never before this constructor returns: with whether the waiting ended
            in time.
    """

    def __init__(
        self, kept: Awaitable[object], seconds: float, then: Callable[[bool], None]
    ) -> None:
        self._then: Callable[[bool], None] | None = then
        future = asyncio.ensure_future(kept)
        _unfinished.add(future)
        future.add_done_callback(self._finished)
        self._timer = future.get_loop().call_later(max(seconds, 0), self.give_up)

    def give_up(self) -> None:
        """Wait no longer."""
        self._end(in_time=False)

    def _finished(self, future: asyncio.Future[object]) -> None:
        _unfinished.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            log_failure("a decision could not be kept", error)
        self._end(in_time=True)

    def _end(self, *, in_time: bool) -> None:
        if self._then is None:
            return
        then, self._then = self._then, None
        self._timer.cancel()
        then(in_time)

"""Waiting until a decision is kept, but never longer than its reply may wait."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from webhook.serving.failures import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable

# The loop itself holds tasks by weak references only.
_unfinished: set[asyncio.Future[object]] = set()


async def wait_until_kept(kept: Awaitable[object], seconds: float) -> bool:
    """Wait for a decision to be kept.

    What keeps it goes on when the time is over. A failure of it is logged, and ends the waiting.

    Args:
        kept: Ends when the decision is kept.
        seconds: For how long to wait at most; may be negative.

    Returns:
        Whether the waiting ended in time.
    """
    future = asyncio.ensure_future(kept)
    if not future.done():
        _unfinished.add(future)
        # A server that stops cancels what it will not wait for; the answer is still sent.
        with suppress(asyncio.CancelledError):
            await asyncio.wait((future,), timeout=max(seconds, 0))
    future.add_done_callback(_finished)
    return future.done()


def _finished(future: asyncio.Future[object]) -> None:
    _unfinished.discard(future)
    if future.cancelled():
        return
    error = future.exception()
    if error is not None:
        log_failure("a decision could not be kept", error)

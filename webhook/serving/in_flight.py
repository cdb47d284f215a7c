"""The requests being received or answered, bounded in number."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Shed(StrEnum):
    """Why a request was sent away, with 503."""

    TOO_MANY = "too-many"
    BODY_SLOW = "body-slow"


@dataclass(slots=True, eq=False)
class Request:
    """One request, from its head to its answer.

    Attributes:
        patience: For how long the rest of its body is waited.
        sent_away: Whether it had to make room for another.
    """

    patience: asyncio.Timeout | None = None
    sent_away: bool = False


class InFlight:
    """Room for requests.

    Where there are too many, the one goes whose body has been awaited longest: an API server
    sends a body at once, and whoever does not cannot keep others out. Where all are complete, the
    new one goes.

    Args:
        most: How many there may be.
        count_shed: Told of each that has to go.
    """

    def __init__(self, most: int, count_shed: Callable[[Shed], None]) -> None:
        self._most = most
        self._count_shed = count_shed
        self._requests: set[Request] = set()
        # Used for its order: the one awaited longest comes first.
        self._receiving: dict[Request, None] = {}

    def count(self) -> int:
        """Return how many there are; any thread may ask."""
        return len(self._requests)

    def enter(self) -> Request | None:
        """Return a new request, which must leave in the end; None where there is no room."""
        if len(self._requests) >= self._most:
            slowest = next(iter(self._receiving), None)
            if slowest is None:
                self._count_shed(Shed.TOO_MANY)
                return None
            self._send_away(slowest, Shed.BODY_SLOW)
        request = Request()
        self._requests.add(request)
        self._receiving[request] = None
        return request

    def complete(self, request: Request) -> None:
        """Note that the body of a request has come; it will not be sent away any more."""
        self._receiving.pop(request, None)

    def leave(self, request: Request) -> None:
        """Give back the room of a request; a second time does nothing."""
        self.complete(request)
        self._requests.discard(request)

    def _send_away(self, request: Request, why: Shed) -> None:
        self.leave(request)
        self._count_shed(why)
        request.sent_away = True
        if request.patience is not None and not request.patience.expired():
            request.patience.reschedule(asyncio.get_running_loop().time())

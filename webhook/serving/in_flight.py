"""The requests being received or answered, bounded in number."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Shed(StrEnum):
    """Why a request was sent away, with 503."""

    TOO_MANY = "too-many"
    BODY_SLOW = "body-slow"


class InFlight:
    """Room for requests, from their head to their answer; a request is any object.

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
        self._requests: set[object] = set()
        # How each whose body is awaited is sent away; the one awaited longest comes first.
        self._receiving: dict[object, Callable[[], None]] = {}

    def count(self) -> int:
        """Return how many there are; any thread may ask."""
        return len(self._requests)

    def enter(self, request: object, send_away: Callable[[], None] | None = None) -> bool:
        """Make room for a request, which must leave in the end; return whether there is any.

        Args:
            request: Comes in.
            send_away: Called if it has to go before its body is complete; None where that has
                come.
        """
        if len(self._requests) >= self._most and not self._make_room():
            return False
        self._requests.add(request)
        if send_away is not None:
            self._receiving[request] = send_away
        return True

    def complete(self, request: object) -> None:
        """Note that the body of a request has come; it will not be sent away any more."""
        self._receiving.pop(request, None)

    def leave(self, request: object) -> None:
        """Give back the room of a request, if it has any."""
        self._receiving.pop(request, None)
        self._requests.discard(request)

    def _make_room(self) -> bool:
        slowest = next(iter(self._receiving), None)
        if slowest is None:
            self._count_shed(Shed.TOO_MANY)
            return False
        send_away = self._receiving[slowest]
        self.leave(slowest)
        self._count_shed(Shed.BODY_SLOW)
        send_away()
        return True

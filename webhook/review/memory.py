"""What one replica remembers of its refusals, bounded.

A controller that retries a refused migration gets one constant text, so that KubeVirt's own Events
fold into one (docs/rules.md, "One decision, one id").
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

REMEMBERED_FOR = timedelta(hours=1)
MOST_REMEMBERED = 4096


class RefusalMemory:
    """The decision ids of refusals less than an hour old, and to which object each id belongs."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        """Remember at most so many refusals and so many ids; the oldest give way."""
        self._most = most
        self._refusals: OrderedDict[Hashable, tuple[str, datetime]] = OrderedDict()
        self._objects: OrderedDict[str, Hashable] = OrderedDict()

    def recall(self, refusal: Hashable, now: datetime) -> str:
        """Return the decision id of an identical refusal less than an hour old, else ""."""
        known = self._refusals.get(refusal)
        if known is None or now - known[1] >= REMEMBERED_FOR:
            return ""
        return known[0]

    def keep(self, refusal: Hashable, decision_id: str, now: datetime) -> None:
        """Remember a refusal; one that is known already keeps its first time."""
        if self.recall(refusal, now):
            return
        self._refusals[refusal] = (decision_id, now)
        self._refusals.move_to_end(refusal)
        while len(self._refusals) > self._most:
            self._refusals.popitem(last=False)

    def claim(self, decision_id: str, obj: Hashable, *, dry_run: bool = False) -> bool:
        """Tie an id to an object; False where it is known to belong to another one.

        A dry run asks only: it leaves nothing in memory.
        """
        if dry_run:
            return self._objects.get(decision_id, obj) == obj
        known = self._objects.setdefault(decision_id, obj)
        self._objects.move_to_end(decision_id)
        while len(self._objects) > self._most:
            self._objects.popitem(last=False)
        return known == obj

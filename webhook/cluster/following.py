"""What is known of one kind in a live cluster: its objects among the facts, and how fresh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from webhook.cluster.credentials import one_line
from webhook.cluster.kinds import key_of, read, unreadable
from webhook.cluster.pruning import prune
from webhook.cluster.settling import creation, settling
from webhook.model.fields import InvalidObject
from webhook.model.migration import LauncherPod, Migration
from webhook.model.node import Node

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from webhook.cluster.errors import RequestFailed
    from webhook.cluster.facts import Facts
    from webhook.cluster.resources import Resource
    from webhook.cluster.sharing import Sharing
    from webhook.model.fields import Object

_MOST_UNREADABLE = 1000


class FollowedKind:
    """One kind: the sink of its reflector, and its state for everybody else.

    Attributes:
        synced: All objects were read at least once, or the kind is known not to be there.
        installed: Whether the kind is served; None while that is not known.
        error: Why nothing comes now; "" where all is well.
    """

    def __init__(
        self,
        resource: Resource,
        facts: Facts,
        sharing: Sharing,
        lock: threading.Lock,
        changed: Callable[[], None],
        monotonic: Callable[[], float],
        clock: Callable[[], float],
        settle_after: Callable[[], float],
    ) -> None:
        """Begin with nothing known.

        Args:
            resource: The kind.
            facts: Where its objects go.
            sharing: What equal parts of them are shared by.
            lock: Held by whoever touches the facts.
            changed: Called when facts or state have changed.
            monotonic: A clock that never jumps, in seconds.
            clock: The time, in Unix seconds.
            settle_after: For how many seconds labels may still come to a node.
        """
        self.resource = resource
        self.synced = False
        self.installed: bool | None = None
        self.error = ""
        self._facts = facts
        self._sharing = sharing
        self._lock = lock
        self._changed = changed
        self._monotonic = monotonic
        self._clock = clock
        self._settle_after = settle_after
        self._alive = -math.inf
        self._unreadable: dict[str, str] = {}

    @property
    def age(self) -> float:
        """Seconds since the last sign that what is known still holds; infinite before that."""
        return self._monotonic() - self._alive if self.synced else math.inf

    @property
    def count(self) -> int:
        """How many objects are kept."""
        return len(self._facts.of(self.resource.facts.store))

    def __str__(self) -> str:
        """Say how it stands, in a few words."""
        if self.installed is False:
            words = "not installed"
        else:
            words = f"{self.count} known" if self.synced else "not read yet"
        if self.error:
            words += f"; warning: {self.error}"
        if unreadable := dict(self._unreadable):
            key, why = next(iter(unreadable.items()))
            words += f"; warning: {len(unreadable)} left out; the first: {key}: {why}"
        return words

    def put(self, obj: Object) -> str:
        """Take an object that is there; return its key, "" where it has none."""
        kind, key = self.resource.facts, ""
        try:
            key = key_of(kind, obj)
            value = read(kind, self._sharing, key, prune(self.resource.kind, obj))
        except Exception as error:
            # Whatever is wrong with one object, the others are still to be followed.
            known = isinstance(error, InvalidObject)
            what = one_line(str(error) if known else f"{type(error).__name__}: {error}")
            if key not in self._unreadable and len(self._unreadable) < _MOST_UNREADABLE:
                self._unreadable[key] = what
            with self._lock:
                changed = self._facts.leave_out(kind.store, unreadable(obj, key, what))
            if changed:
                self._changed()
            return key
        self._unreadable.pop(key, None)
        if isinstance(value, Migration | LauncherPod) and value.finished:
            # It takes no room and bears on no decision any more.
            self._forget(key)
            return key
        with self._lock:
            if isinstance(value, Node):
                before = self._facts.nodes.get(key)
                value = settling(value, before, creation(obj), self._clock(), self._settle_after())
            changed = self._facts.put(kind.store, key, value)
        if changed:
            self._changed()
        return key

    def drop(self, obj: Object) -> None:
        """Forget an object that is there no more."""
        try:
            key = key_of(self.resource.facts, obj)
        except InvalidObject:
            return
        self._unreadable.pop(key, None)
        self._forget(key)

    def filled(self, keys: set[str]) -> None:
        """Know all there are: what is not among these keys is there no more."""
        with self._lock:
            for key in self._facts.keys(self.resource.facts.store) - keys:
                self._facts.drop(self.resource.facts.store, key)
        for key in self._unreadable.keys() - keys:
            del self._unreadable[key]
        self.installed = True
        self._well()

    def not_installed(self) -> None:
        """Know that the kind is not served, so that there are none."""
        self.filled(set())
        self.installed = False

    def alive(self) -> None:
        """Know that what is known is what the API server has now."""
        self._alive = self._monotonic()
        self.error = ""

    def failed(self, error: RequestFailed) -> None:
        """Know why nothing comes."""
        self.error = str(error)
        self._changed()

    def _well(self) -> None:
        self.alive()
        self.synced = True
        self._changed()

    def _forget(self, key: str) -> None:
        with self._lock:
            changed = self._facts.drop(self.resource.facts.store, key)
        if changed:
            self._changed()

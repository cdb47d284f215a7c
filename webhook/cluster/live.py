"""Facts of a live cluster, followed as it changes; a review never waits for any of it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.facts import Facts
from webhook.cluster.following import FollowedKind
from webhook.cluster.pacing import Pacer
from webhook.cluster.reflector import Reflector
from webhook.cluster.resources import RESOURCES
from webhook.cluster.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from webhook.cluster.connection import Connection
    from webhook.cluster.reflector import Following
    from webhook.cluster.resources import Resource
    from webhook.model.snapshot import Snapshot

# Between two snapshots: events that come meanwhile are taken up together.
LEAST_PAUSE = 0.02
# And so many times what the last one took, so that it is never most of the work.
PAUSE_OF_COST = 4.0
# As long as not every kind is known, every decision is blind: a snapshot is of little use.
PAUSE_UNTIL_SYNCED = 0.5
TICK = 1.0


class _Aged(NamedTuple):
    """A snapshot, and the same one with the kinds that have grown too old since."""

    of: Snapshot
    stale: tuple[str, ...]
    snapshot: Snapshot


class LiveFacts:
    """The facts of a cluster at any moment, with their age.

    Attributes:
        kinds: How each kind stands.
    """

    def __init__(
        self,
        connection: Connection,
        following: Callable[[], Following],
        *,
        resources: Sequence[Resource] = RESOURCES,
        told: Callable[[LiveFacts], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take whom to ask; :meth:`start` begins.

        Args:
            connection: The way to the cluster.
            following: The settings of the moment.
            resources: The kinds to follow.
            told: Called after a change of facts or state, and every second, from one thread.
            monotonic: A clock that never jumps, in seconds.
            clock: The time, in Unix seconds.
        """
        self._following = following
        self._told = told
        self._clock = clock
        self._lock = threading.Lock()
        self._facts = Facts()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        sharing, pacer = Sharing(), Pacer()
        self.kinds = tuple(
            FollowedKind(
                resource, self._facts, sharing, self._lock, self._changed.set, monotonic, clock
            )
            for resource in resources
        )
        self._reflectors = [
            Reflector(connection, kind.resource, kind, following, pacer) for kind in self.kinds
        ]
        self._snapshot = self._facts.snapshot()
        self._aged = _Aged(self._snapshot, (), self._snapshot)
        self._thread = threading.Thread(target=self._build, name="facts", daemon=True)

    def start(self) -> None:
        """Begin to follow the cluster; the threads end with the process."""
        self._thread.start()
        for reflector in self._reflectors:
            reflector.start()

    def stop(self) -> None:
        """Ask all threads to end; those that wait for the API server do so until it speaks."""
        self._stopping.set()
        self._changed.set()
        for reflector in self._reflectors:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether every kind that decisions rest on was read at least once."""
        return all(kind.synced for kind in self.kinds if kind.resource.needed)

    @property
    def age(self) -> float:
        """Seconds since the last sign of life of the kind that is longest silent."""
        return max(kind.age for kind in self.kinds if kind.resource.needed)

    def snapshot(self) -> Snapshot:
        """Return the facts of this moment, with the kinds that are missing or too old."""
        snapshot, aged = self._snapshot, self._aged
        stale = self.stale()
        if not stale:
            return snapshot
        if aged.of is not snapshot or aged.stale != stale:
            aged = self._aged = _Aged(snapshot, stale, replace(snapshot, stale=stale))
        return aged.snapshot

    def stale(self) -> tuple[str, ...]:
        """Name the kinds that were never read, or of which too long nothing was heard."""
        limit = self._following().stale_after
        return tuple(
            kind.resource.name
            for kind in self.kinds
            if kind.resource.needed and not kind.age <= limit
        )

    def _build(self) -> None:
        while not self._stopping.is_set():
            began = time.perf_counter()
            self._changed.clear()
            with self._lock:
                self._settle()
                self._snapshot = self._facts.snapshot()
            self._told(self)
            took = time.perf_counter() - began
            pause = max(LEAST_PAUSE, took * PAUSE_OF_COST)
            self._stopping.wait(pause if self.synced else max(pause, PAUSE_UNTIL_SYNCED))
            self._changed.wait(TICK)

    def _settle(self) -> None:
        """Let the labels of nodes count as settled when their time is over."""
        now = self._clock()
        over = [
            node
            for node in self._facts.nodes.values()
            if node.settling_until is not None and node.settling_until <= now
        ]
        for node in over:
            self._facts.put("nodes", node.name, replace(node, settling_until=None))

"""Facts of a live cluster, followed as it changes; a review never waits for any of it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.credentials import one_line
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
# As long as not every kind was read, every decision is blind: a snapshot is of little use.
PAUSE_UNTIL_SYNCED = 0.5
TICK = 1.0


class _Built(NamedTuple):
    """A snapshot, when it held, and the kinds that were wholly read before it was made."""

    snapshot: Snapshot
    at: float
    read: frozenset[FollowedKind]


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
        log: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take whom to ask; :meth:`start` begins.

        Args:
            connection: The way to the cluster.
            following: The settings of the moment.
            resources: The kinds to follow.
            told: Called after a change of facts or state, and every second, from one thread.
            log: Takes a line about a fault of the guard itself.
            monotonic: A clock that never jumps, in seconds.
            clock: The time, in Unix seconds.
        """
        self._following = following
        self._told = told
        self._log = log
        self._monotonic = monotonic
        self._clock = clock
        self._lock = threading.Lock()
        self._facts = Facts()
        self._changed = threading.Event()
        self._synced = threading.Event()
        self._stopping = threading.Event()
        sharing, pacer = Sharing(), Pacer()
        self.kinds = tuple(
            FollowedKind(
                resource,
                self._facts,
                sharing,
                self._lock,
                self._note,
                monotonic,
                clock,
                lambda: self._following().settle_after,
            )
            for resource in resources
        )
        self._reflectors = [
            Reflector(connection, kind.resource, kind, following, pacer) for kind in self.kinds
        ]
        self._built = _Built(self._facts.snapshot(), monotonic(), frozenset())
        self._aged = _Aged(self._built.snapshot, (), self._built.snapshot)
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
        self._synced.set()
        for reflector in self._reflectors:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether the facts hold every kind that decisions rest on."""
        return all(kind in self._built.read for kind in self.kinds if kind.resource.needed)

    @property
    def age(self) -> float:
        """Seconds since the last sign of life of the kind that is longest silent."""
        return max(kind.age for kind in self.kinds if kind.resource.needed)

    def snapshot(self) -> Snapshot:
        """Return the facts of this moment, with the kinds that are missing or too old."""
        built, aged = self._built, self._aged
        stale = self._stale(built)
        if not stale:
            return built.snapshot
        if aged.of is not built.snapshot or aged.stale != stale:
            marked = replace(built.snapshot, stale=stale)
            aged = self._aged = _Aged(built.snapshot, stale, marked)
        return aged.snapshot

    def stale(self) -> tuple[str, ...]:
        """Name the kinds that were never read, or of which too long nothing was heard."""
        return self._stale(self._built)

    def _stale(self, built: _Built) -> tuple[str, ...]:
        limit = self._following().stale_after
        # What is known of a kind may be fresh, and yet not have come into the snapshot.
        held = self._monotonic() - built.at <= limit
        return tuple(
            kind.resource.name
            for kind in self.kinds
            if kind.resource.needed and not (held and kind in built.read and kind.age <= limit)
        )

    def _note(self) -> None:
        """Take up that facts or the state of a kind have changed."""
        self._changed.set()
        if not self._synced.is_set() and self._all_read():
            self._synced.set()

    def _all_read(self) -> bool:
        return all(kind.synced for kind in self.kinds if kind.resource.needed)

    def _build(self) -> None:
        while not self._stopping.is_set():
            began = time.perf_counter()
            self._changed.clear()
            try:
                self._make_snapshot()
                self._told(self)
            except Exception as error:
                # The thread must live: without it the facts stand still. That they are old shows.
                with suppress(Exception):
                    what = f"{type(error).__name__}: {one_line(str(error))}"
                    self._log(f"facts: a fault of migration-guard itself: {what}")
                self._stopping.wait(TICK)
            took = time.perf_counter() - began
            if not self._synced.wait(PAUSE_UNTIL_SYNCED):
                continue
            self._stopping.wait(max(LEAST_PAUSE, took * PAUSE_OF_COST))
            self._changed.wait(TICK)

    def _make_snapshot(self) -> None:
        with self._lock:
            # Before the snapshot is made: what is read meanwhile may not be in it.
            read = frozenset(kind for kind in self.kinds if kind.synced)
            self._settle()
            self._built = _Built(self._facts.snapshot(), self._monotonic(), read)

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

"""The connections of the admission port, all together: which of them must go."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.serving.connection import Connection, Ending, Peer, Stage

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from webhook.serving.connection import Conversation

STALLED_HANDSHAKE_SECONDS = 0.5
"""An honest handshake takes two round trips; one that has taken so long is the first to go. One
that has just begun is not: it has cost its work already."""

MOST_UNFINISHED = 64 * 1024 * 1024
"""Bytes of requests that are not complete, on all connections together: nine bodies of the largest
size, or four thousand reviews of 16 KB. Without it, each connection could have one of the largest
size held for it."""

LATE_SECONDS = 2.0
"""A sweep so long after the one before does nothing."""

_STALLS = {
    Stage.ACCEPTED: Ending.STALLED_HANDSHAKE,
    Stage.READY: Ending.STALLED_HANDSHAKE,
    Stage.HANDSHAKE: Ending.STALLED_HANDSHAKE,
    Stage.FIRST_REQUEST: Ending.STALLED_REQUEST,
    Stage.REQUEST: Ending.STALLED_REQUEST,
}
"""The stages that may not last, and what it is called when they do."""

_NO_LINGERING = struct.pack("ii", 1, 0)

_BEFORE_TLS = (Stage.ACCEPTED, Stage.READY, Stage.HANDSHAKE)

_RECEIVING = (
    Stage.FIRST_REQUEST,
    Stage.REQUEST,
    # Behind the request that is being answered; no client of a webhook sends any there.
    Stage.ANSWER,
)

_SHED_IN_ORDER = (
    # Whoever never sent a request has less to lose than one who will send the next.
    Stage.ACCEPTED,
    Stage.READY,
    Stage.HANDSHAKE,
    Stage.FIRST_REQUEST,
    Stage.IDLE,
    Stage.REQUEST,
)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be, and for how long one may stall.

    Attributes:
        most: Connections in all, from the moment they are accepted.
        most_per_peer: Of them, from one address.
        stall_seconds: For how long a peer may owe the handshake, a whole request, or the reading
            of an answer.
        idle_seconds: For how long it may wait before its next request.
    """

    most: int
    most_per_peer: int
    stall_seconds: float
    idle_seconds: float


class Connections:
    """The connections of a server: counted, and ended when they stall or are too many.

    Args:
        limits: How many, for how long.
        clock: The event loop's, in seconds.
        count_closed: Called with the reason whenever one has gone.
        refusal: Takes the server's end of TLS on a connection, and returns the line that is the
            answer to every request of its peer; None for a peer that is answered.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        clock: Callable[[], float],
        count_closed: Callable[[Ending], None],
        refusal: Callable[[ssl.SSLObject], str | None],
    ) -> None:
        self.refusal = refusal
        self.limits = limits
        self.stopping = False
        self._clock = clock
        self._count_closed = count_closed
        self._before_tls = 0
        self._established = 0
        self._unfinished_bytes = 0
        self._peers: dict[str, Peer] = {}
        # By the peer that has not had a turn for longest.
        self._turns: dict[Peer, None] = {}
        # With the time by which all answers so far must have been read.
        self._unread: dict[Connection, float] = {}
        self._swept = clock()

    @property
    def in_handshake(self) -> int:
        """How many have not completed the TLS handshake; any thread may ask."""
        return self._before_tls

    @property
    def established(self) -> int:
        """How many have completed the TLS handshake; any thread may ask."""
        return self._established

    @property
    def newcomers(self) -> int:
        """How many have not yet sent their first request."""
        return self._in(*_BEFORE_TLS, Stage.FIRST_REQUEST)

    @property
    def idle(self) -> int:
        """How many are kept for a further request."""
        return self._in(Stage.IDLE)

    def _in(self, *stages: Stage) -> int:
        return sum(len(peer.stages[stage]) for peer in self._peers.values() for stage in stages)

    def admit(self, accepted: socket.socket, address: str) -> Connection | None:
        """Count a new connection, and make room for it.

        A peer that has too many loses one of its own. If there are too many in all, the peer
        that has most loses one; so none loses any to the flood of another, as long as that one
        has more. A connection whose request is complete and not yet answered is never ended; if
        there are only such, the new one is.

        Returns:
            The connection, unless it was ended.
        """
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address)
        connection = Connection(peer, accepted, self._clock() + self.limits.stall_seconds)
        self._before_tls += 1
        peer.count += 1
        if peer.count > self.limits.most_per_peer:
            self._shed(peer, Ending.SHED_PEER, connection)
        elif self._before_tls + self._established > self.limits.most:
            self._shed(self._largest_peer(), Ending.SHED_TOTAL, connection)
        if connection.stage is Stage.ENDED:
            accepted.close()
            self.lost(connection)
            return None
        peer.stages[Stage.ACCEPTED][connection] = None
        return connection

    def ready(self, connection: Connection) -> None:
        """Note that a connection has something to begin its handshake with."""
        self.move(connection, Stage.READY)
        self._turns.setdefault(connection.peer)

    def make_room(self) -> None:
        """End a connection of the peer that has most, where one may be ended."""
        if self._peers and (victim := self._victim(self._largest_peer())) is not None:
            self.end(victim, Ending.SHED_TOTAL)

    def next_handshake(self) -> Connection | None:
        """Return the connection that shall begin its handshake now; peers take turns."""
        while self._turns:
            peer = next(iter(self._turns))
            del self._turns[peer]
            ready = peer.stages[Stage.READY]
            connection = _first(ready)
            if connection is None:
                continue
            if len(ready) > 1:
                self._turns[peer] = None
            self.move(connection, Stage.HANDSHAKE)
            return connection
        return None

    def move(self, connection: Connection, stage: Stage) -> None:
        """Note that a connection has come to another stage."""
        before = connection.stage
        if before is Stage.ENDED:
            return
        stages = connection.peer.stages
        del stages[before][connection]
        stages[stage][connection] = None
        connection.stage = stage
        if stage in _BEFORE_TLS:
            # The deadline stays: waiting for its turn is part of the handshake.
            return
        if stage is Stage.FIRST_REQUEST:
            self._before_tls -= 1
            self._established += 1
        if stage in _STALLS:
            connection.deadline = self._clock() + self.limits.stall_seconds
        elif stage is Stage.IDLE:
            connection.deadline = self._clock() + self.limits.idle_seconds

    def opened(
        self, connection: Connection, transport: asyncio.Transport, conversation: Conversation
    ) -> None:
        """Note that the handshake is done."""
        connection.transport = transport
        connection.conversation = conversation
        if connection.stage is Stage.ENDED:
            # What the peer needed for it had come before the end.
            transport.abort()
        self.move(connection, Stage.FIRST_REQUEST)

    def conversations(self) -> list[Conversation]:
        """Return the conversations on the connections whose handshake is done."""
        return [
            connection.conversation
            for peer in self._peers.values()
            for stage in Stage
            for connection in peer.stages[stage]
            if connection.conversation is not None
        ]

    def hold(self, connection: Connection, size: int) -> None:
        """Note that more of a request has come, and that it is not complete.

        If there is too much of such in all, the largest of the peer that has most is ended.
        """
        if connection.stage is Stage.ENDED:
            return
        self._count_unfinished(connection, size)
        while self._unfinished_bytes > MOST_UNFINISHED:
            peer = max(self._peers.values(), key=lambda peer: peer.unfinished)
            held = (one for stage in _RECEIVING for one in peer.stages[stage])
            self.end(max(held, key=lambda one: one.unfinished), Ending.SHED_TOTAL)

    def release(self, connection: Connection) -> None:
        """Note that the request is complete."""
        self._count_unfinished(connection, -connection.unfinished)

    def sent(self, connection: Connection) -> None:
        """Note that an answer was sent, which the peer has to read."""
        self._unread.setdefault(connection, self._clock() + self.limits.stall_seconds)

    def heard(self, connection: Connection) -> None:
        """Note that a request came in.

        With it comes the acknowledgement of all its sender has received. A busy connection may
        have something under way whenever the sweep looks at it.
        """
        deadline = self._unread.get(connection)
        if (
            deadline is not None
            and deadline - self._clock() < self.limits.stall_seconds / 2
            and not connection.unread
        ):
            del self._unread[connection]

    def sweep(self) -> None:
        """End the connections whose deadline has passed; to be called twice a second."""
        now = self._clock()
        late = now - self._swept > LATE_SECONDS
        self._swept = now
        if late:
            # The whole process stood still. What came in meanwhile is read before the next time.
            return
        for peer in list(self._peers.values()):
            for stage, ending in _STALLS.items():
                # In one stage all have the same time, so the first comer's ends first.
                while due := _first(peer.stages[stage]):
                    if due.deadline > now:
                        break
                    self.end(due, ending)
            for idle in peer.stages[Stage.IDLE]:
                if idle.deadline > now:
                    break
                if idle.transport is not None:
                    # In good order. It is idle until its peer has closed it too.
                    idle.ending = idle.ending or Ending.IDLE
                    idle.transport.close()
        for connection, deadline in list(self._unread.items()):
            if not connection.unread:
                del self._unread[connection]
            elif deadline <= now:
                self.end(connection, Ending.UNREAD_ANSWER)

    def end_handshakes(self) -> None:
        """End the connections that have not completed their handshake, because of the stop."""
        for peer in list(self._peers.values()):
            for stage in _BEFORE_TLS:
                for connection in list(peer.stages[stage]):
                    self.end(connection, Ending.STOPPING)

    def end(self, connection: Connection, why: Ending) -> None:
        """Break a connection off, without a word to its peer, who would be waited for again."""
        if connection.stage is Stage.ENDED:
            return
        connection.ending = connection.ending or why
        unowned = connection.stage is Stage.READY
        self._leave(connection)
        if connection.transport is not None:
            # It may be closed, and its protocol not have been told yet.
            with suppress(OSError):
                # Otherwise the system would go on offering what the peer does not read.
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
            connection.transport.abort()
        elif unowned:
            connection.socket.close()
            self.lost(connection)
        else:
            with suppress(OSError):
                # The event loop waits for the peer, and takes this for its end.
                connection.socket.shutdown(socket.SHUT_RDWR)

    def lost(self, connection: Connection, how: Ending = Ending.CLIENT) -> None:
        """Forget a connection that is closed; ``how`` counts unless the server ended it."""
        if connection.stage is not Stage.ENDED:
            self._leave(connection)
        # It refers to the connection.
        connection.conversation = None
        self._count_closed(connection.ending or how)

    def _leave(self, connection: Connection) -> None:
        """Take a connection from all lists: it uses up no room from now on."""
        peer, stage = connection.peer, connection.stage
        peer.stages[stage].pop(connection, None)
        self._unread.pop(connection, None)
        self.release(connection)
        if stage in _BEFORE_TLS:
            self._before_tls -= 1
        else:
            self._established -= 1
        peer.count -= 1
        if peer.count == 0:
            del self._peers[peer.address]
            self._turns.pop(peer, None)
        connection.stage = Stage.ENDED

    def _count_unfinished(self, connection: Connection, size: int) -> None:
        connection.unfinished += size
        connection.peer.unfinished += size
        self._unfinished_bytes += size

    def _largest_peer(self) -> Peer:
        return max(self._peers.values(), key=lambda peer: peer.count)

    def _shed(self, peer: Peer, why: Ending, newest: Connection) -> None:
        victim = self._victim(peer)
        self.end(newest if victim is None else victim, why)

    def _victim(self, peer: Peer) -> Connection | None:
        stalled = _first(peer.stages[Stage.HANDSHAKE])
        honest_until = self._clock() + self.limits.stall_seconds - STALLED_HANDSHAKE_SECONDS
        if stalled is not None and stalled.deadline < honest_until:
            return stalled
        for stage in _SHED_IN_ORDER:
            if (first := _first(peer.stages[stage])) is not None:
                return first
        # Their answers are ready, but cannot be sent because the earlier ones are not read.
        waiting = peer.stages[Stage.ANSWER]
        return next((one for one in waiting if one in self._unread and one.unread), None)


def _first(connections: dict[Connection, None]) -> Connection | None:
    return next(iter(connections), None)

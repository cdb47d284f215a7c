"""One connection of the admission port: what it is waiting for, and how it ended."""

from __future__ import annotations

import enum
import fcntl
import struct
import termios
import time
from typing import TYPE_CHECKING, Protocol

from webhook.serving.arrival import waited

if TYPE_CHECKING:
    import asyncio
    import socket

AT_ONCE_SECONDS = 1.0
"""A client that has connected in order to ask something asks within so long of the beginning of its
handshake, which takes a round trip or two."""


class Ending(enum.StrEnum):
    """How a connection came to be closed; the values are those of the metric's label."""

    CLIENT = "client"
    IDLE = "idle"
    FAILED_HANDSHAKE = "failed-handshake"
    REFUSED = "refused"
    STALLED_HANDSHAKE = "stalled-handshake"
    STALLED_REQUEST = "stalled-request"
    UNREAD_ANSWER = "unread-answer"
    SHED_TOTAL = "shed-total"
    SHED_PEER = "shed-peer"
    STOPPING = "stopping"


class Stage(enum.Enum):
    """What a connection is waiting for."""

    ACCEPTED = enum.auto()
    """Its first byte."""
    READY = enum.auto()
    """Its turn to begin the TLS handshake."""
    HANDSHAKE = enum.auto()
    """The rest of the handshake."""
    FIRST_REQUEST = enum.auto()
    """The rest of its first request."""
    IDLE = enum.auto()
    """A further request; none is owed."""
    REQUEST = enum.auto()
    """The rest of a further request."""
    ANSWER = enum.auto()
    """The answer to a request that is complete."""
    ENDED = enum.auto()
    """Nothing: the server has broken it off."""


class Conversation(Protocol):
    """HTTP on a connection."""

    def shutdown(self) -> None:
        """Close the connection if it is idle, else after its response."""

    def judge_client(self) -> None:
        """Look again whether the client gets an answer."""

    def give_up(self) -> None:
        """Answer at once what can be answered, and close the connection."""


class Peer:
    """All connections from one address.

    Attributes:
        count: How many there are.
        unfinished: Bytes of requests that are not complete.
        stages: The connections at each stage, the one that came to it first foremost.
    """

    __slots__ = ("address", "count", "stages", "unfinished")

    def __init__(self, address: str) -> None:
        self.address = address
        self.count = 0
        self.unfinished = 0
        self.stages: dict[Stage, dict[Connection, None]] = {stage: {} for stage in Stage}


class Connection:
    """One connection, from the moment it is accepted.

    Attributes:
        peer: Where it comes from.
        socket: Given to the event loop when the handshake begins; until then to be closed here.
        transport: What carries requests, once the handshake is done.
        conversation: What is said on it, likewise.
        deadline: When its stage has lasted too long, in seconds on the loop's clock.
        ending: Why the server ended it; None as long as it did not.
        unfinished: Bytes of the request that is not complete.
        greeted: When the handshake was taken up, in seconds of ``time.perf_counter``.
        hello_waited: How many seconds its client had waited by then.
    """

    __slots__ = (
        "conversation",
        "deadline",
        "ending",
        "greeted",
        "hello_waited",
        "peer",
        "socket",
        "stage",
        "transport",
        "unfinished",
    )

    def __init__(self, peer: Peer, accepted: socket.socket, deadline: float) -> None:
        self.peer = peer
        self.socket = accepted
        self.transport: asyncio.Transport | None = None
        self.conversation: Conversation | None = None
        self.stage = Stage.ACCEPTED
        self.deadline = deadline
        self.ending: Ending | None = None
        self.unfinished = 0
        self.greeted = 0.0
        self.hello_waited = 0.0

    def greet(self) -> None:
        """Note that the handshake is taken up."""
        self.greeted = time.perf_counter()
        self.hello_waited, _ = waited(self.socket)

    def arrival(self) -> tuple[float, bool]:
        """Return when the request whose first byte is read now came, as far as its client goes.

        A client whose connection had to wait for the event loop has waited with its first request
        all the while.

        Returns:
            Seconds of ``time.perf_counter``; whether the client has given up since.
        """
        seconds, given_up = waited(self.socket)
        came = time.perf_counter() - seconds
        if self.hello_waited:
            if came - self.greeted < AT_ONCE_SECONDS:
                came -= self.hello_waited
            self.hello_waited = 0.0
        return came, given_up

    @property
    def unread(self) -> bool:
        """Whether the peer's system has not yet acknowledged all that was sent.

        It acknowledges what it has room for; when it has none left, its program does not read.
        """
        if self.socket.fileno() < 0:
            return False
        answer = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        return struct.unpack("i", answer) != (0,)

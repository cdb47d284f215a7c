"""One request on a connection of the admission port, from its head to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.serving import replies
from webhook.serving.http_rules import LARGEST_BODY, Head, refusal_of

if TYPE_CHECKING:
    import asyncio

    from webhook.serving.keeping import Waiting
    from webhook.serving.replies import Reply


class Request:
    """A request whose head has come.

    Args:
        head: What it says of itself.
        began: When its first byte came, in seconds of ``time.perf_counter``.
        keep_alive: Whether the client wants the connection to last.
        client_refusal: The reply to a client that gets no answer; None for one that does.

    Attributes:
        deadline: By when the reply should have left, on the same clock.
        last: Whether the connection ends with its response.
        refusal: The reply that does not depend on its body, which is then thrown away.
        complete: Whether its body has come whole.
        answered: Whether its response has been written.
        body_timer: Ends the waiting for its body; None where it was not waited for.
        waiting: For its decision to be kept.
    """

    __slots__ = (
        "_body",
        "answered",
        "began",
        "body_timer",
        "complete",
        "deadline",
        "head",
        "last",
        "refusal",
        "waiting",
    )

    def __init__(
        self, head: Head, began: float, *, keep_alive: bool, client_refusal: Reply | None
    ) -> None:
        self.head = head
        self.began = began
        self.deadline = began + head.target.budget
        self.last = not keep_alive
        self.refusal = refusal_of(head, client_refusal)
        self.complete = False
        self.answered = False
        self.body_timer: asyncio.Handle | None = None
        self.waiting: Waiting | None = None
        self._body: bytes | bytearray = b""

    @property
    def awaits_permission(self) -> bool:
        """Whether its client may be waiting to be told that the body is wanted.

        A request in HTTP/1.0 cannot be told (RFC 9110, 10.1.1).
        """
        return not self.complete and b"expect" in self.head.headers and self.head.version == "1.1"

    def receive(self, part: bytes) -> None:
        """Take a part of the body."""
        if self.refusal is not None or self.answered:
            return
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            # Not a list of the parts: each of two bytes would take fifty.
            self._body += part
        else:
            self._body = bytearray(self._body) + part
        if len(self._body) > LARGEST_BODY:
            self.refusal = replies.TOO_LARGE
            self._body = b""

    def take_body(self) -> bytes:
        """Return what has come of the body, and keep nothing of it."""
        body = bytes(self._body)
        self._body = b""
        return body

"""HTTP on one connection of the admission port: requests are answered in their order."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from webhook.serving import replies
from webhook.serving.connection import Connection, Ending, Stage
from webhook.serving.keeping import Waiting
from webhook.serving.metrics import Miss
from webhook.serving.replies import response
from webhook.serving.request_reader import NotHttp, RequestReader

if TYPE_CHECKING:
    from webhook.serving.connections import Connections
    from webhook.serving.replies import Reply
    from webhook.serving.request import Request
    from webhook.serving.reviewing import Reviews

LEAST_BODY_SECONDS = 0.1
"""How long a body may follow its head even where the time is over; a part of what is kept back of
the API server's own timeout (``budget_of`` in deadlines.py)."""
DRAIN_SECONDS = 1.0
"""How long a client may go on sending after a response that ends the connection. Were the
connection closed at once, what is still under way would make the client's system throw the
response away unread."""

# What is received is read at once, so one buffer does for all connections. It has room for all
# that uvloop may hold of one: what it did not give away in one go it would keep, for each.
_BUFFER = memoryview(bytearray(512 * 1024))
_PIECE = 64 * 1024


class ReviewProtocol(asyncio.BufferedProtocol):
    """Answers the requests on a connection, and says what the connection is waiting for.

    | request | response |
    |---|---|
    | no HTTP, or too much of a head | 400, and the connection ends |
    | breaks a rule of HTTP (``webhook.serving.http_rules``) | 400, 417, 501, 505, and so it does |
    | a client that is not allowed, whatever it asks | 403, one line that says why |
    | path other than /mutate, /validate | 404 |
    | method other than POST | 405, with Allow |
    | content type other than application/json, or a content encoding | 415 |
    | body over 7 MiB, declared or sent | 413, and the connection ends |
    | ``?timeout=`` that is no duration | 400 |
    | more requests than there is room for (``InFlight``) | 503 |
    | body not complete within the budget | 408, and the connection ends |
    | not an AdmissionReview (``NotAReview``) | 400, the error's message |
    | the answer function raises anything else | 500, one generic line; the log says why |
    | the server stops before the body is complete | 503 |
    | anything else | 200, what the answer function returned |

    A reply leaves within the budget that ``budget_of`` reads from ``?timeout=``, counted from the
    request's first byte, also where that has waited for the event loop: where it is over before
    the decision has begun, the answer function is told so; where it is over before the decision is
    kept, the reply waits no longer. Each is counted, and so is a decision that takes longer. A
    client that leaves in the middle of its body gets no answer and is not counted.

    A request whose body comes with its head, as an API server sends it, is answered before control
    goes back to the event loop, without a task. One whose head is refused is answered before its
    body has come, which is then thrown away.

    Args:
        reviews: Decides.
        connections: Where this connection is counted.
        connection: What is known of it since it was accepted.
    """

    def __init__(self, reviews: Reviews, connections: Connections, connection: Connection) -> None:
        self._reviews = reviews
        self._connections = connections
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._reader: RequestReader
        self._write_paused = False
        self._read_paused = False
        # Goes on with the next request, once other connections have had their turn.
        self._turn: asyncio.Handle | None = None
        self._drain: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(  # type: ignore[override]  # the base class takes any transport
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for the first request."""
        self._transport = transport
        self._reader = RequestReader(self._connection.arrival)
        self._reader.client_refusal = self._client_refusal(last=False)
        self._connections.opened(self._connection, transport, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more; a decision that is being kept is still waited for, and counted."""
        self._connections.lost(self._connection)
        for request in self._reader.requests:
            if request.waiting is None:
                self._release(request)
        self._reader.close()
        for handle in (self._turn, self._drain):
            if handle is not None:
                handle.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the transport shall put what it receives."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Read on, and answer what has come whole."""
        connection = self._connection
        if connection.stage is Stage.IDLE:
            self._connections.heard(connection)
        reader = self._reader
        try:
            for start in range(0, nbytes, _PIECE):
                reader.read(_BUFFER[start : min(start + _PIECE, nbytes)])
        except NotHttp:
            self._refuse()
            return
        receiving = reader.receiving
        if reader.in_head or (receiving is not None and not receiving.answered):
            self._connections.hold(connection, nbytes)
        elif connection.unfinished:
            self._connections.release(connection)
        self._settle(finished=self._turn is None and self._go_on(), heard=True)

    def pause_writing(self) -> None:
        """Answer nothing more before the client has read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on, the client has read."""
        self._write_paused = False
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    # How requests are answered.

    def _go_on(self) -> bool:
        """Go on with the first request; return whether it is done with."""
        requests = self._reader.requests
        if not requests or self._connection.stage is Stage.ENDED:
            return False
        request = requests[0]
        if not request.answered and request.waiting is None and not self._write_paused:
            if request.refusal is not None:
                self._answer(request, request.refusal)
            elif request.complete:
                self._review(request)
            elif request.body_timer is None:
                self._await_body(request)
        if not (request.answered and request.complete):
            return False
        requests.popleft()
        if requests:
            self._turn = self._loop.call_soon(self._take_turn)
        elif self._reader.last or (self._connections.stopping and not self._reader.in_head):
            self._transport.close()
        return True

    def _take_turn(self) -> None:
        self._turn = None
        self._settle(finished=self._go_on())

    def _await_body(self, request: Request) -> None:
        if not self._reviews.in_flight.enter(request, self._send_away):
            self._answer(request, replies.BUSY)
            return
        # Where the guard itself let the connection wait, the time may be over with the head; the
        # client then is about to send the rest.
        seconds = max(request.deadline - time.perf_counter(), LEAST_BODY_SECONDS)
        request.body_timer = self._loop.call_later(seconds, self._body_due, 2)
        if request.awaits_permission:
            self._transport.write(replies.CONTINUE)

    def _review(self, request: Request) -> None:
        reviews, deadline = self._reviews, request.deadline
        if request.body_timer is not None:
            request.body_timer.cancel()
            reviews.in_flight.complete(request)
        elif not reviews.in_flight.enter(request):
            self._answer(request, replies.BUSY)
            return
        reply, kept, missed = reviews.review(
            request.head.target.path, request.take_body(), deadline
        )
        if kept is None:
            self._answer(request, reply)
            return

        def then(in_time: bool) -> None:
            request.waiting = None
            if not in_time:
                kept.late()
            if not in_time and not missed:
                reviews.metrics.count_deadline_miss(Miss.RECORD)
            self._answer(request, reply)
            self._settle(finished=self._go_on())

        request.waiting = Waiting(kept.ends, deadline - time.perf_counter(), then)

    def _send_away(self) -> None:
        self._give_up_body(replies.SENT_AWAY)

    def _body_due(self, turns: int) -> None:
        """Give up a body after so many turns of the event loop.

        It may be there, unread because the loop was held up. Timers and what is called soon come
        before the loop reads, and what that calls soon after it.
        """
        if turns > 0:
            timer = self._loop.call_soon(self._body_due, turns - 1)
            self._reader.requests[0].body_timer = timer
            return
        self._reviews.metrics.count_deadline_miss(Miss.BODY)
        self._give_up_body(replies.BODY_LATE)

    def _give_up_body(self, reply: Reply) -> None:
        self._answer(self._reader.requests[0], reply)
        self._settle(finished=False)

    def _answer(self, request: Request, reply: Reply) -> None:
        """Write the response to the first request, and take no more where it is the last."""
        self._release(request)
        request.answered = True
        if not request.complete:
            request.take_body()
        reader, requests = self._reader, self._reader.requests
        closing = (
            reply.last
            or request.last
            # Its client may leave out the body it announced.
            or request.awaits_permission
            or (self._connections.stopping and len(requests) == 1 and not reader.in_head)
        )
        if not self._transport.is_closing():
            with_body = request.head.method != b"HEAD"
            self._transport.write(response(reply, closing=closing, with_body=with_body))
            self._connections.sent(self._connection)
        self._reviews.metrics.observe_review(
            request.head.target.path, reply.status, time.perf_counter() - request.began
        )
        if closing:
            reader.last = True
            while len(requests) > 1:
                self._release(requests.pop())
            if not request.complete:
                self._drain = self._loop.call_later(DRAIN_SECONDS, self._transport.close)

    def _refuse(self) -> None:
        """End a connection on which something came that is no HTTP, with a word if one fits."""
        reader, connection = self._reader, self._connection
        first = reader.requests[0] if reader.requests else None
        if first is not None and first.complete:
            # A word would be taken for its answer.
            self._connections.end(connection, Ending.REFUSED)
            return
        connection.ending = connection.ending or Ending.REFUSED
        if first is not None:
            self._release(first)
            reader.requests.clear()
        if first is None or not first.answered:
            self._transport.write(response(replies.NOT_HTTP, closing=True, with_body=True))
        reader.last, reader.receiving = True, None
        self._transport.close()

    def _release(self, request: Request) -> None:
        """Give back what a request holds."""
        self._reviews.in_flight.leave(request)
        if request.body_timer is not None:
            request.body_timer.cancel()

    # What the connection is waiting for.

    def _settle(self, *, finished: bool, heard: bool = False) -> None:
        """Note what the connection is waiting for now.

        Args:
            finished: Whether a request is done with.
            heard: Whether something has come in.
        """
        reader, stage = self._reader, self._connection.stage
        if reader.requests and reader.requests[0].complete:
            wanted = Stage.ANSWER
        elif finished and not reader.requests and not reader.in_head:
            wanted = Stage.IDLE
        elif stage is Stage.ANSWER or (stage is Stage.IDLE and heard):
            # Any byte is taken for the first of a request, even one the parser skips.
            wanted = Stage.REQUEST
        else:
            wanted = stage
        if wanted is not stage or wanted is Stage.IDLE:
            self._connections.move(self._connection, wanted)
        blocked = len(reader.requests) > 1 or (wanted is Stage.ANSWER and self._write_paused)
        if blocked is not self._read_paused and not self._transport.is_closing():
            self._read_paused = blocked
            if blocked:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # Whether the client gets an answer.

    def judge_client(self) -> None:
        """Refuse what has not been decided, and all that follows, of a client allowed no more."""
        reader = self._reader
        if reader.client_refusal is not None:
            return
        reader.client_refusal = refusal = self._client_refusal(last=True)
        if refusal is None:
            return
        for request in reader.requests:
            if request.refusal is None:
                request.refusal = refusal
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _client_refusal(self, *, last: bool) -> Reply | None:
        line = self._connections.refusal(self._transport.get_extra_info("ssl_object"))
        return None if line is None else replies.line_reply(HTTPStatus.FORBIDDEN, line, last=last)

    # How the server stops.

    def shutdown(self) -> None:
        """Close the connection if it is idle, else after its response."""
        self._connection.ending = Ending.STOPPING
        if not self._reader.requests and not self._reader.in_head:
            self._transport.close()

    def give_up(self) -> None:
        """Answer at once what can be answered, and close the connection."""
        first = self._reader.requests[0] if self._reader.requests else None
        if first is not None and first.waiting is not None:
            first.waiting.give_up()
        elif first is not None and not first.answered:
            self._answer(first, replies.STOPPING)
        self._transport.close()

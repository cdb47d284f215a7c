"""The admission port: HTTP in, one call of the answer function, HTTP out, always in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.review.errors import NotAReview
from webhook.serving.clients import REFUSAL
from webhook.serving.deadlines import InvalidTimeout, budget_of
from webhook.serving.failures import log_failure, one_line
from webhook.serving.in_flight import InFlight
from webhook.serving.keeping import wait_until_kept
from webhook.serving.metrics import PATHS, Miss
from webhook.serving.protocol import BEGAN

if TYPE_CHECKING:
    from webhook.review.answer import Answer
    from webhook.serving.in_flight import Request
    from webhook.serving.metrics import Metrics

Answering = Callable[[str, bytes, str], "Answer"]
"""Takes the path and the body of a request, and why it is too late to decide ("" where it is
not); it does as ``webhook.review.answer.Answerer.answer`` does."""

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 7 * 1024 * 1024
"""Bytes. Two objects of 3 MB and 1 MB for the rest, as controller-runtime allows
(pkg/webhook/admission/http.go): etcd takes no larger object."""


_ONCE = (b"host", b"content-type", b"content-encoding", b"expect", b"transfer-encoding")
"""Headers that may not be repeated. The parser sees to Content-Length."""

DRAIN_SECONDS = 1.0
"""How long a client may go on sending after a response that ends the connection. Were the
connection closed at once, what is still under way would make the client's system throw the
response away unread."""

LATE = "the time that the API server allows for an answer was over"


class Reply(NamedTuple):
    """A response before it is sent; ``last`` ends the connection."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"text/plain; charset=utf-8"
    last: bool = False


class _ClientGone(Exception):
    """The client closed the connection in the middle of the body."""


class _TooLarge(Exception):
    """The body has more than ``LARGEST_BODY`` bytes."""


class AdmissionApplication:
    """The ASGI application that takes reviews.

    | request | response |
    |---|---|
    | a client that is not allowed, whatever it asks | 403, one line that says why |
    | path other than /mutate, /validate | 404 |
    | method other than POST | 405, with Allow |
    | content type other than application/json, or a content encoding | 415 |
    | transfer encoding other than chunked | 501 |
    | HTTP other than 1.0 and 1.1 | 505 |
    | expectation other than 100-continue | 417 |
    | no Host or two, a repeated header that must stand once, Upgrade | 400 |
    | body over 7 MiB, declared or sent | 413, and the connection ends |
    | ``?timeout=`` that is no duration | 400 |
    | more requests than there is room for (``InFlight``) | 503 |
    | body not complete within the budget | 408, and the connection ends |
    | not an AdmissionReview (``NotAReview``) | 400, the error's message |
    | the answer function raises anything else | 500, one generic line; the log says why |
    | the server stops before the body is complete | 503 |
    | anything else | 200, what the answer function returned |

    What is no HTTP at all is answered 400 before it comes here, by the protocol.

    A reply leaves within the budget that ``budget_of`` reads from ``?timeout=``, counted from the
    request's first byte: where it is over before the decision has begun, the answer function is
    told so; where it is over before the decision is kept, the reply waits no longer. Each is
    counted. A client that leaves in the middle of its body gets no answer and is not counted.

    Args:
        answer: Decides; it is called on the event loop's thread, one request at a time.
        metrics: Every response is counted there.
        most_reviews: How many may be received or answered at a time.
    """

    def __init__(self, answer: Answering, metrics: Metrics, most_reviews: int) -> None:
        self._answer = answer
        self._metrics = metrics
        self._in_flight = InFlight(most_reviews, metrics.count_shed)
        metrics.watch_in_flight(self._in_flight.count)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI 3 describes it."""
        began: float = scope["state"][BEGAN]
        path: str = scope["path"]
        try:
            reply = _refusal(scope) or await self._reviewed(scope, receive, began)
        except _ClientGone:
            return
        await _respond(reply, send)
        self._metrics.observe_review(path, reply.status, time.perf_counter() - began)
        if reply.last:
            await _drain(receive)
            await send({"type": "http.response.body"})

    async def _reviewed(self, scope: Message, receive: Receive, began: float) -> Reply:
        try:
            deadline = began + budget_of(scope["query_string"])
        except InvalidTimeout as error:
            return _line(HTTPStatus.BAD_REQUEST, str(error))
        request = self._in_flight.enter()
        if request is None:
            return _BUSY
        try:
            async with asyncio.timeout(deadline - time.perf_counter()) as request.patience:
                body = await self._body(request, receive)
            return await self._answered(scope["path"], body, deadline)
        except _TooLarge:
            return _TOO_LARGE
        except TimeoutError:
            if request.sent_away:
                return _SENT_AWAY
            self._metrics.count_deadline_miss(Miss.BODY)
            return _BODY_LATE
        except asyncio.CancelledError:
            # Only a server that stops cancels a request: it has waited long enough for the rest
            # of the body. What follows is the last this task does.
            return _STOPPING
        finally:
            self._in_flight.leave(request)

    async def _body(self, request: Request, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if request.sent_away:
                raise TimeoutError
            if size > LARGEST_BODY:
                raise _TooLarge
            parts.append(part)
            if not message.get("more_body", False):
                self._in_flight.complete(request)
                return b"".join(parts)

    async def _answered(self, path: str, body: bytes, deadline: float) -> Reply:
        late = time.perf_counter() >= deadline
        try:
            answer = self._answer(path, body, LATE if late else "")
        except NotAReview as error:
            return _line(HTTPStatus.BAD_REQUEST, one_line(str(error)))
        except Exception as error:
            log_failure("a review failed", error, path=path)
            return _line(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the review failed; the server's log says why"
            )
        if late:
            self._metrics.count_deadline_miss(Miss.DECISION)
        if answer.kept is not None:
            left = deadline - time.perf_counter()
            if not await wait_until_kept(answer.kept, left) and not late:
                self._metrics.count_deadline_miss(Miss.RECORD)
        return Reply(HTTPStatus.OK, answer.body, content_type=b"application/json")


def _line(
    status: HTTPStatus, text: str, *headers: tuple[bytes, bytes], last: bool = False
) -> Reply:
    return Reply(status, text.encode() + b"\n", headers, last=last)


_NOT_FOUND = _line(HTTPStatus.NOT_FOUND, "nothing here; reviews go to /mutate and /validate")
_NOT_POST = _line(HTTPStatus.METHOD_NOT_ALLOWED, "reviews are sent with POST", (b"allow", b"POST"))
_NOT_JSON = _line(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
_NOT_HTTP_1 = _line(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is wanted")
_BAD_HEAD = _line(HTTPStatus.BAD_REQUEST, "the head of the request breaks a rule of HTTP/1.1")
_NOT_CHUNKED = _line(HTTPStatus.NOT_IMPLEMENTED, "no transfer encoding but chunked is understood")
_NOT_EXPECTED = _line(
    HTTPStatus.EXPECTATION_FAILED, "no expectation but 100-continue is understood"
)
_TOO_LARGE = _line(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than 7 MiB", last=True)
_BODY_LATE = _line(
    HTTPStatus.REQUEST_TIMEOUT, "the body did not come within the request's timeout", last=True
)
_BUSY = _line(HTTPStatus.SERVICE_UNAVAILABLE, "too many reviews at a time; try again")
_SENT_AWAY = _line(
    HTTPStatus.SERVICE_UNAVAILABLE, "the body came too slowly beside so many others", last=True
)
_STOPPING = _line(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping", last=True)


def _refusal(scope: Message) -> Reply | None:
    """Return the response to a request that is refused for its head alone."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    refusal = _refusal_of_message(scope, headers)
    if refusal is not None:
        # What is said of where it ends, or who speaks next, cannot be relied upon.
        return refusal._replace(last=True)
    if (why := scope["state"].get(REFUSAL)) is not None:
        refusal = _line(HTTPStatus.FORBIDDEN, why)
    elif scope["path"] not in PATHS:
        refusal = _NOT_FOUND
    elif scope["method"] != "POST":
        refusal = _NOT_POST
    elif not _is_json(headers.get(b"content-type", b"")) or b"content-encoding" in headers:
        refusal = _NOT_JSON
    elif int(headers.get(b"content-length", b"0")) > LARGEST_BODY:
        refusal = _TOO_LARGE
    else:
        return None
    if b"expect" in headers:
        # The client may now leave out the body it announced; what comes next on this
        # connection could then be taken for that body.
        return refusal._replace(last=True)
    return refusal


def _refusal_of_message(scope: Message, headers: Mapping[bytes, bytes]) -> Reply | None:
    """Return the response to a request that is no good HTTP (RFC 9110, RFC 9112)."""
    given = scope["headers"]
    version = scope["http_version"]
    if version not in ("1.1", "1.0"):
        return _NOT_HTTP_1
    if b"host" not in headers and version == "1.1":
        return _BAD_HEAD
    if len(headers) < len(given) and any(
        sum(name == once for name, _ in given) > 1 for once in _ONCE
    ):
        return _BAD_HEAD
    if b"upgrade" in headers and b"upgrade" in headers.get(b"connection", b"").lower():
        # The parser takes what follows for another protocol.
        return _BAD_HEAD
    coding = headers.get(b"transfer-encoding")
    if coding is not None and version == "1.0":
        return _BAD_HEAD
    if coding is not None and coding.strip().lower() != b"chunked":
        return _NOT_CHUNKED
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        return _NOT_EXPECTED
    return None


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


async def _respond(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    if reply.last:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(reply.status), "headers": headers})
    # The connection ends with the last part, and is to stay open while the rest is drained.
    await send({"type": "http.response.body", "body": reply.body, "more_body": reply.last})


async def _drain(receive: Receive) -> None:
    """Throw away what the client still sends, for a second at most."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except (TimeoutError, asyncio.CancelledError):
        # It has had its second, or the server stops.
        return

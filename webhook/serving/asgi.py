"""The admission port: HTTP in, one call of the answer function, HTTP out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.review.errors import NotAReview
from webhook.serving.failures import log_failure, one_line
from webhook.serving.metrics import PATHS

if TYPE_CHECKING:
    from webhook.serving.metrics import Metrics

Answer = Callable[[str, bytes], bytes]
"""Takes the path and the body of a request, returns the body of the response."""

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGEST_BODY = 7 * 1024 * 1024
"""Bytes. Two objects of 3 MB and 1 MB for the rest, as controller-runtime allows
(pkg/webhook/admission/http.go): etcd takes no larger object."""


class Reply(NamedTuple):
    """A response before it is sent."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"text/plain; charset=utf-8"


class _ClientGone(Exception):
    """The client closed the connection in the middle of the body."""


class _TooLarge(Exception):
    """The body has more than ``LARGEST_BODY`` bytes."""


class AdmissionApplication:
    """The ASGI application that takes reviews.

    | request | response |
    |---|---|
    | path other than /mutate, /validate | 404 |
    | method other than POST | 405, with Allow |
    | content type other than application/json | 415 |
    | body over 7 MiB, declared or sent | 413 |
    | not an AdmissionReview (``NotAReview``) | 400, the error's message |
    | the answer function raises anything else | 500, one generic line; the log says why |
    | the server stops before the body is complete | 503 |
    | anything else | 200, what the answer function returned |

    The query string is ignored; the API server puts ``?timeout=`` there. A client that leaves
    in the middle of its body gets no answer and is not counted.

    Args:
        answer: Decides; it is called on the event loop's thread, one request at a time.
        metrics: Every response is counted there.
    """

    def __init__(self, answer: Answer, metrics: Metrics) -> None:
        self._answer = answer
        self._metrics = metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI 3 describes it."""
        started = time.perf_counter()
        path: str = scope["path"]
        reply = _refusal(scope)
        if reply is None:
            try:
                body = await _body(receive)
            except _ClientGone:
                return
            except _TooLarge:
                reply = _TOO_LARGE
            except asyncio.CancelledError:
                # Only a server that stops cancels a request: it has waited long enough for
                # the rest of the body. What follows is the last this task does.
                reply = _STOPPING
            else:
                reply = self._answered(path, body)
        await _respond(reply, send)
        self._metrics.observe_review(path, reply.status, time.perf_counter() - started)

    def _answered(self, path: str, body: bytes) -> Reply:
        try:
            answer = self._answer(path, body)
        except NotAReview as error:
            return _line(HTTPStatus.BAD_REQUEST, one_line(str(error)))
        except Exception as error:
            log_failure("a review failed", error, path=path)
            return _line(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the review failed; the server's log says why"
            )
        return Reply(HTTPStatus.OK, answer, content_type=b"application/json")


def _line(status: HTTPStatus, text: str, *headers: tuple[bytes, bytes]) -> Reply:
    return Reply(status, text.encode() + b"\n", headers)


_NOT_FOUND = _line(HTTPStatus.NOT_FOUND, "nothing here; reviews go to /mutate and /validate")
_NOT_POST = _line(HTTPStatus.METHOD_NOT_ALLOWED, "reviews are sent with POST", (b"allow", b"POST"))
_NOT_JSON = _line(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json")
_TOO_LARGE = _line(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than 7 MiB")
_STOPPING = _line(
    HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping", (b"connection", b"close")
)


def _refusal(scope: Message) -> Reply | None:
    """Return the response to a request that is refused for its head alone."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if scope["path"] not in PATHS:
        refusal = _NOT_FOUND
    elif scope["method"] != "POST":
        refusal = _NOT_POST
    elif not _is_json(headers.get(b"content-type", b"")):
        refusal = _NOT_JSON
    elif int(headers.get(b"content-length", b"0")) > LARGEST_BODY:
        refusal = _TOO_LARGE
    else:
        return None
    if b"expect" in headers:
        # The client may now leave out the body it announced; what comes next on this
        # connection could then be taken for that body.
        return refusal._replace(headers=(*refusal.headers, (b"connection", b"close")))
    return refusal


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > LARGEST_BODY:
            raise _TooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _respond(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": int(reply.status), "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})

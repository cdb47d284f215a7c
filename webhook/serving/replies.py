"""What the admission port says: its replies, and how one is written as an HTTP response."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Tells a client that its body is wanted (RFC 9110, 10.1.1)."""

_TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"


class Reply(NamedTuple):
    """A response before it is written.

    Attributes:
        last: Whether it ends the connection.
    """

    status: HTTPStatus
    body: bytes
    headers: bytes = b""
    content_type: bytes = _TEXT
    last: bool = False


def line_reply(status: HTTPStatus, text: str, *, headers: bytes = b"", last: bool = False) -> Reply:
    """Return a reply of one plain line.

    Args:
        status: Of the response.
        text: The line, without its end.
        headers: Further header lines, each with its end.
        last: Whether it ends the connection.
    """
    return Reply(status, text.encode() + b"\n", headers, last=last)


def response(reply: Reply, *, closing: bool, with_body: bool) -> bytes:
    """Return a whole HTTP/1.1 response.

    Args:
        reply: What is said.
        closing: Whether the connection is closed after it.
        with_body: False for the response to HEAD, which has the headers alone.
    """
    return b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        _STATUS_LINES[reply.status],
        _date(int(time.time())),
        reply.content_type,
        len(reply.body),
        reply.headers,
        b"connection: close\r\n" if closing else b"",
        reply.body if with_body else b"",
    )


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """Return the header that says when a response was made (RFC 9110, 6.6.1)."""
    return b"date: %b\r\n" % formatdate(second, usegmt=True).encode()


_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}

NOT_FOUND = line_reply(HTTPStatus.NOT_FOUND, "nothing here; reviews go to /mutate and /validate")
NOT_POST = line_reply(
    HTTPStatus.METHOD_NOT_ALLOWED, "reviews are sent with POST", headers=b"allow: POST\r\n"
)
NOT_JSON = line_reply(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json"
)
NOT_HTTP = line_reply(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1, or too much of it", last=True)
NOT_HTTP_1 = line_reply(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is wanted", last=True)
BAD_HEAD = line_reply(
    HTTPStatus.BAD_REQUEST, "the head of the request breaks a rule of HTTP/1.1", last=True
)
NOT_CHUNKED = line_reply(
    HTTPStatus.NOT_IMPLEMENTED, "no transfer encoding but chunked is understood", last=True
)
NOT_EXPECTED = line_reply(
    HTTPStatus.EXPECTATION_FAILED, "no expectation but 100-continue is understood", last=True
)
TOO_LARGE = line_reply(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is larger than 7 MiB", last=True
)
BODY_LATE = line_reply(
    HTTPStatus.REQUEST_TIMEOUT, "the body did not come within the request's timeout", last=True
)
BUSY = line_reply(HTTPStatus.SERVICE_UNAVAILABLE, "too many reviews at a time; try again")
SENT_AWAY = line_reply(
    HTTPStatus.SERVICE_UNAVAILABLE, "the body came too slowly beside so many others", last=True
)
STOPPING = line_reply(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping", last=True)
FAILED = line_reply(
    HTTPStatus.INTERNAL_SERVER_ERROR, "the review failed; the server's log says why"
)

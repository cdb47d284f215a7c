"""Which requests are refused for their head alone, and with what reply."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import httptools

from webhook.serving import replies
from webhook.serving.deadlines import InvalidTimeout, budget_of
from webhook.serving.metrics import PATHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.serving.replies import Reply

LARGEST_BODY = 7 * 1024 * 1024
"""Bytes. Two objects of 3 MB and 1 MB for the rest, as controller-runtime allows
(pkg/webhook/admission/http.go): etcd takes no larger object."""

_ONCE = frozenset((b"host", b"content-type", b"content-encoding", b"expect", b"transfer-encoding"))
"""Headers that may not be repeated. The parser sees to Content-Length."""


class Target(NamedTuple):
    """What a request asks for.

    Attributes:
        path: Unescaped; "" where the target is none that HTTP allows.
        budget: Seconds within which the request must be answered, from its first byte.
        trouble: Why its ``timeout`` cannot be understood, for the caller; "" where it can.
    """

    path: str
    budget: float
    trouble: str = ""


class Head(NamedTuple):
    """What a request says before its body.

    Attributes:
        version: Of HTTP, such as "1.1".
        headers: By name in small letters; of a repeated one the last.
        repeated: The names that came more than once.
        upgrade: Whether the parser takes what follows for another protocol.
    """

    method: bytes
    target: Target
    version: str
    headers: Mapping[bytes, bytes]
    repeated: frozenset[bytes] = frozenset()
    upgrade: bool = False


# An API server asks for the same few targets all the time; reading one takes 15 µs.
@lru_cache(maxsize=16)
def target_of(url: bytes) -> Target:
    """Read the target of a request: a path, maybe after scheme and host, and a query string."""
    try:
        parsed = httptools.parse_url(url)
        path = (parsed.path or b"").decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        return Target("", budget_of(b""))
    path = unquote(path)
    try:
        return Target(path, budget_of(parsed.query or b""))
    except InvalidTimeout as error:
        return Target(path, budget_of(b""), str(error))


def refusal_of(head: Head, client_refusal: Reply | None) -> Reply | None:
    """Return the reply to a request that is refused for its head alone; None for any other.

    Args:
        head: Of the request.
        client_refusal: The reply to a client that gets no answer, whatever it asks; None for one
            that does.
    """
    refusal = _breach(head)
    if refusal is not None:
        # What is said of where the request ends, or who speaks next, cannot be relied upon.
        return refusal
    refusal = _refusal(head, client_refusal)
    if refusal is not None and b"expect" in head.headers:
        # The client may now leave out the body it announced; what comes next on this
        # connection could then be taken for that body.
        return refusal._replace(last=True)
    return refusal


def _refusal(head: Head, client_refusal: Reply | None) -> Reply | None:
    headers = head.headers
    if client_refusal is not None:
        return client_refusal
    target = head.target
    if target.path not in PATHS:
        return replies.NOT_FOUND
    if head.method != b"POST":
        return replies.NOT_POST
    content_type = headers.get(b"content-type", b"")
    if content_type != replies.JSON and not _is_json(content_type):
        return replies.NOT_JSON
    if b"content-encoding" in headers:
        return replies.NOT_JSON
    if int(headers.get(b"content-length", b"0")) > LARGEST_BODY:
        return replies.TOO_LARGE
    if target.trouble:
        return replies.line_reply(HTTPStatus.BAD_REQUEST, target.trouble)
    return None


def _breach(head: Head) -> Reply | None:
    """Return the reply to a request that is no good HTTP (RFC 9110, RFC 9112)."""
    headers, version = head.headers, head.version
    if version not in ("1.1", "1.0"):
        return replies.NOT_HTTP_1
    if not head.target.path or head.upgrade or not head.repeated.isdisjoint(_ONCE):
        return replies.BAD_HEAD
    if b"host" not in headers and version == "1.1":
        return replies.BAD_HEAD
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":
            return replies.BAD_HEAD
        if coding.strip().lower() != b"chunked":
            return replies.NOT_CHUNKED
    if headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        return replies.NOT_EXPECTED
    return None


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == replies.JSON

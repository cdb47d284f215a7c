"""Bytes of a connection in, requests out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httptools

from webhook.serving.failures import log_failure
from webhook.serving.http_rules import Head, target_of
from webhook.serving.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.serving.replies import Reply

MOST_HEADERS = 100
"""Header lines of a request and of the trailer of its body; the API server sends seven."""

LARGEST_HEAD = 64 * 1024
"""Bytes after which a head that is still not complete is refused, and a chunked body in which
nothing but trailer or chunk extensions comes. The parser has no limit, and copies the part of a
line that it has with each piece that comes."""

MOST_PIPELINED = 16
"""Requests that may wait on one connection behind the one being answered. No client of a webhook
sends any."""


class NotHttp(Exception):
    """What came is no HTTP/1.1, or too much of it. Nothing that follows can be understood."""


class _TooMuch(Exception):
    """A request with too many headers, or one request too many; the parser passes it on."""


class _NotTaken(Exception):
    """A request behind the last one that is taken; the parser passes it on."""


class RequestReader:
    """Reads the requests on one connection.

    What is HTTP and where a request ends is said by the parser alone (llhttp, strict: RFC 9112
    without its leniencies); this class keeps what the parser finds.

    Args:
        arrival: Returns when the first byte of the request that begins came, in seconds of
            ``time.perf_counter``, and whether the client has given up since.

    Attributes:
        requests: Those whose head has come and that are not done with, in their order. Whoever
            answers them takes them out.
        receiving: The latest of them, as long as its body is not complete.
        in_head: Whether another has begun, and its head is not complete.
        last: Whether no further request is taken: whatever comes is thrown away.
        client_refusal: The reply to a client that gets no answer; None for one that does.
    """

    def __init__(self, arrival: Callable[[], tuple[float, bool]]) -> None:
        self.requests: deque[Request] = deque()
        self.receiving: Request | None = None
        self.in_head = False
        self.last = False
        self.client_refusal: Reply | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._head_size = 0
        self._arrival = arrival
        self._began = 0.0
        self._given_up = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: frozenset[bytes] = frozenset()
        self._header_count = 0
        # Bytes of pieces in which nothing of the body came, since something of it did.
        self._beside_body = 0
        self._body_came = False

    def read(self, data: memoryview) -> None:
        """Read on.

        Raises:
            NotHttp: The connection can be read no further.
        """
        if self.last and self.receiving is None:
            return
        in_head = self.in_head
        self._body_came = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.last and self.receiving is None:
                return
            _log_if_ours(error)
            raise NotHttp from error
        if in_head and self.in_head:
            self._head_size += len(data)
            if self._head_size > LARGEST_HEAD:
                raise NotHttp
        if self._body_came or self.receiving is None:
            self._beside_body = 0
        else:
            self._beside_body += len(data)
            if self._beside_body > LARGEST_HEAD:
                raise NotHttp

    def close(self) -> None:
        """Let go of all that was read, and of the parser, which refers to this object."""
        self.requests.clear()
        self.receiving = None
        del self._parser

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request, maybe in the data that ended the one before."""
        if self.last:
            raise _NotTaken
        self.in_head = True
        # Its timeout runs from here, also while it waits behind another on its connection.
        self._began, self._given_up = self._arrival()
        self._head_size = self._header_count = 0
        self._url = b""
        self._headers = {}
        self._repeated = frozenset()

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A line of the trailer is counted only: nobody asks for it."""
        self._header_count += 1
        if self._header_count > MOST_HEADERS:
            raise _TooMuch
        if self.in_head:
            name = name.lower()
            if name in self._headers:
                self._repeated |= {name}
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Take the request in."""
        if len(self.requests) > MOST_PIPELINED:
            raise _TooMuch
        self.in_head = False
        parser = self._parser
        version = parser.get_http_version()
        head = Head(
            parser.get_method(),
            target_of(self._url),
            version,
            self._headers,
            self._repeated,
            parser.should_upgrade(),
        )
        keep_alive = version != "1.0" and parser.should_keep_alive()
        # Whoever has given up has waited for all its time before: nobody hears a decision.
        began = self._began - (head.target.budget if self._given_up else 0.0)
        request = Request(head, began, keep_alive=keep_alive, client_refusal=self.client_refusal)
        self.last = not keep_alive or (request.refusal is not None and request.refusal.last)
        self.receiving = request
        self.requests.append(request)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_came = True
        if self.receiving is not None:
            self.receiving.receive(body)

    def on_message_complete(self) -> None:
        """Take the request as received."""
        if self.receiving is not None:
            self.receiving.complete = True
            self.receiving = None


def _log_if_ours(error: BaseException) -> None:
    """Log a failure of this module; what a client sends wrong must not fill the log."""
    cause = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, _TooMuch):
        log_failure("a request could not be read", cause or error)

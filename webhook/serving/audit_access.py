"""Who may read the audit over HTTP.

Without a cluster nobody can be believed, so only this host is answered. With one, the API server is
asked about the bearer of the token that a request shows.
"""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import request

from webhook.cluster.errors import RequestFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cluster.access import AccessReviews

AUDIENCE = "migration-guard"
"""For whom a token must be issued that comes from another host. The operations port speaks plain
HTTP: whoever overhears such a token can read the audit with it and nothing else, while one for the
API server would be worth all that its bearer may do. This host is believed with either."""

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


class Refused(Exception):
    """A request that is not answered: its status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        """Keep the status beside the reason."""
        super().__init__(why)
        self.status = status


def this_host_alone() -> None:
    """Let this host pass, and refuse a proxy or a browser that speaks for another.

    Raises:
        Refused: It is somebody else.
    """
    host = request.host.rpartition(":")[0] or request.host
    if not _from_here() or not _is_loopback(host):
        raise Refused(HTTPStatus.FORBIDDEN, "the audit is told on this host only")


class TokenAccess:
    """Lets pass whom the API server knows, and allows to get the path."""

    def __init__(self, reviews: AccessReviews, say: Callable[[str], None]) -> None:
        """Take who asks the API server, and what takes a line for the log."""
        self._reviews = reviews
        self._say = say
        self._told = ""

    def __call__(self) -> None:
        """Ask about the request at hand.

        Raises:
            Refused: It shows no token, nobody knows the token, its bearer may not, or the API
                server cannot be asked.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refused(HTTPStatus.UNAUTHORIZED, "a token is wanted: Authorization: Bearer TOKEN")
        # "/audit/decisions" for every decision.
        page = "/".join(request.path.split("/")[:3])
        here = _from_here()
        try:
            denial = self._reviews.denial(token.strip(), page, AUDIENCE)
            if here and denial is not None and denial.status == HTTPStatus.UNAUTHORIZED:
                denial = self._reviews.denial(token.strip(), page, "")
        except RequestFailed as error:
            self._tell(f"who may read it is not known: {error}")
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the API server does not say who may read this; the guard's log says why",
            ) from error
        self._tell("")
        if denial is None:
            return
        why = denial.why
        if not here and denial.status == HTTPStatus.UNAUTHORIZED:
            why += f"; from another host it must be issued for the audience {AUDIENCE}"
        raise Refused(denial.status, why)

    def _tell(self, words: str) -> None:
        """Log what has changed; the same failure, request after request, is one line."""
        if words != self._told:
            self._told = words
            self._say(f"audit over HTTP: {words or 'the API server says again who may read it'}")


def _from_here() -> bool:
    """Tell whether the request at hand comes from this host, and for nobody else."""
    told = any(name in request.headers for name in _FORWARDED)
    return not told and _is_loopback(request.remote_addr or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

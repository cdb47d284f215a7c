"""Who a caller is and whether it may: asked of the API server, which knows both.

As kube-rbac-proxy and controller-runtime (pkg/metrics/filters/filters.go) do: a TokenReview says
whose token it is, a SubjectAccessReview whether that one may do this.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from webhook.cluster.errors import UNREACHABLE, RequestFailed
from webhook.model import fields
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object

LONGEST_TOKEN = 16 * 1024
"""Characters; a token of a service account has about a thousand."""

REMEMBERED_SECONDS = 30.0
"""For how long what the API server said of a token and a path holds."""

REMEMBERED = 256
"""Answers that are remembered; one more forgets the one that was given longest ago."""

ANSWER_SECONDS = 5.0
"""How long each of the two questions may take."""

_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path, no secret
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Denial(NamedTuple):
    """Why a caller is not answered.

    Attributes:
        status: 401 where nobody knows who it is, 403 where it may not.
        why: One line, without anything of the token.
    """

    status: HTTPStatus
    why: str


class AccessReviews:
    """Asks an API server whether the bearer of a token may read a path, and remembers a while."""

    def __init__(
        self, connection: Connection, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take whom to ask, and a clock that never jumps, in seconds."""
        self._connection = connection
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # By digest: whoever reads this memory finds no token in it.
        self._known: OrderedDict[bytes, tuple[float, Denial | None]] = OrderedDict()

    def denial(self, token: str, path: str, audience: str) -> Denial | None:
        """Return why the bearer of a token may not read a path; None where it may.

        Args:
            token: What the caller shows.
            path: From the root, as a role names it under ``nonResourceURLs``.
            audience: For whom the token must have been issued; "" for the API server itself.

        Raises:
            RequestFailed: The API server does not say.
        """
        if not token or len(token) > LONGEST_TOKEN or not token.isascii():
            return _UNKNOWN
        key = hashlib.sha256("\n".join((audience, path, token)).encode()).digest()
        now = self._monotonic()
        with self._lock:
            until, known = self._known.get(key, (0.0, None))
        if now < until:
            return known
        found = self._ask(token, path, audience)
        with self._lock:
            self._known[key] = (now + REMEMBERED_SECONDS, found)
            self._known.move_to_end(key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _ask(self, token: str, path: str, audience: str) -> Denial | None:
        try:
            asked = {"token": token, **({"audiences": [audience]} if audience else {})}
            said = self._send(_TOKEN_REVIEWS, "TokenReview", asked)
            if not fields.flag(said, "authenticated"):
                return _UNKNOWN
            # An API server that knows nothing of audiences would take any token of its own.
            if audience and audience not in fields.strings(said, "audiences"):
                return _UNKNOWN
            user = fields.mapping(said, "user")
            asks = {
                "user": fields.text(user, "username"),
                "uid": fields.text(user, "uid"),
                "groups": list(fields.strings(user, "groups")),
                "extra": dict(fields.mapping(user, "extra")),
                "nonResourceAttributes": {"path": path, "verb": "get"},
            }
            if fields.flag(self._send(_ACCESS_REVIEWS, "SubjectAccessReview", asks), "allowed"):
                return None
        except InvalidObject as error:
            raise RequestFailed(UNREACHABLE, f"{self._connection.host}: {error}") from error
        return Denial(HTTPStatus.FORBIDDEN, f"no role allows this caller to get {path}")

    def _send(self, path: str, kind: str, spec: Object) -> Object:
        """Return the status of a review that the API server has filled in."""
        group = path.removeprefix("/apis/").rpartition("/")[0]
        review = {"apiVersion": group, "kind": kind, "spec": spec}
        found = self._connection.send("POST", path, review, read_seconds=ANSWER_SECONDS)
        return fields.mapping(found, "status")


_UNKNOWN = Denial(
    HTTPStatus.UNAUTHORIZED, "the API server does not know this token, or not for this purpose"
)

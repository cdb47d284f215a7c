"""Requests to a cluster's API server, answered with raw JSON.

The ``kubernetes`` client finds settings and credentials and keeps the connections. Its typed
objects are not used: they cost many times as much, and one odd object fails a whole list.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from webhook.cluster.credentials import BROKEN, find, one_line, reason
from webhook.cluster.errors import UNREACHABLE, ClusterError, RequestFailed
from webhook.model import fields

if TYPE_CHECKING:
    from pathlib import Path

    from urllib3 import BaseHTTPResponse, PoolManager

    from webhook.cluster.credentials import Credentials

Query = Mapping[str, str]

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
_AGENT = "migration-guard"
# Between two attempts to read settings again.
_RENEW_SECONDS = 5.0
_MOST_AT_ONCE = 64 * 1024
_DONE = (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
# One for each kind that is watched, and some for what is asked beside that.
_POOL_SIZE = 32


@dataclass(frozen=True, slots=True)
class _Session:
    """Settings and credentials as they were when they were read."""

    configuration: Configuration
    pool: PoolManager
    read: float


@dataclass(frozen=True, slots=True)
class _Written:
    """What a request changes."""

    method: str
    body: bytes = field(repr=False)
    content_type: str


class Connection:
    """Requests to one API server; safe to use from any thread.

    Credentials are read again when the server refuses them, so that a rotated token or client
    certificate is taken up. A service account's token is read again every minute.

    Attributes:
        source: Where the settings come from, in words.
        seconds_ahead: By how much the API server's clock is ahead of this one's, to the second, as
            its last answer said; negative where it is behind, 0 before the first.
    """

    def __init__(self, credentials: Credentials) -> None:
        """Read settings and credentials; nothing is asked yet.

        Raises:
            ClusterError: They are missing or broken.
        """
        self.source = credentials.source
        self.seconds_ahead = 0.0
        self._credentials = credentials
        self._lock = threading.Lock()
        self._session = self._new_session()

    @property
    def host(self) -> str:
        """The URL of the API server."""
        host: str = self._session.configuration.host
        return host

    def username(self) -> str:
        """Return as whom the API server knows this client; "" where it does not say.

        Raises:
            RequestFailed: It does not answer, or not that.
            InvalidObject: It answers something else.
        """
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        said = self.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        return fields.text(said, "status", "userInfo", "username")

    def get(
        self, path: str, query: Query | None = None, *, read_seconds: float = READ_SECONDS
    ) -> Any:
        """Return the JSON at a path.

        Args:
            path: From the root, as ``/api/v1/nodes``.
            query: What follows the question mark.
            read_seconds: For how long the server may be silent.

        Raises:
            RequestFailed: There is no such answer.
        """
        with self.open(path, query, read_seconds=read_seconds) as response:
            return self._content(path, response)

    def find(self, path: str, *, read_seconds: float = READ_SECONDS) -> Any:
        """Return the JSON at a path; None where there is nothing.

        Raises:
            RequestFailed: The server does not say.
        """
        try:
            return self.get(path, read_seconds=read_seconds)
        except RequestFailed as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def send(
        self,
        method: str,
        path: str,
        body: object,
        content_type: str = JSON,
        *,
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        """Write something; return the JSON of the answer.

        Args:
            method: ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
            path: From the root, as ``/api/v1/namespaces``.
            body: What is sent, as JSON.
            content_type: Of a patch, which kind.
            read_seconds: For how long the server may be silent.

        Raises:
            RequestFailed: It was not taken, or nobody knows whether it was.
        """
        written = _Written(method, orjson.dumps(body), content_type)
        with self.open(path, read_seconds=read_seconds, written=written) as response:
            return self._content(path, response)

    def _content(self, path: str, response: BaseHTTPResponse) -> Any:
        body = b"".join(self.chunks(response))
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestFailed(UNREACHABLE, f"{self.host}{path}: the answer is no JSON") from error

    @contextmanager
    def open(
        self,
        path: str,
        query: Query | None = None,
        *,
        read_seconds: float = READ_SECONDS,
        written: _Written | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """Ask; the body of the answer is yet to be read.

        Args:
            path: From the root.
            query: What follows the question mark.
            read_seconds: For how long the server may be silent.
            written: What is sent; None where something is only read.

        Raises:
            RequestFailed: The server cannot be reached, or answers with an error.
        """
        session = self._session
        try:
            response = self._ask(session, path, query, read_seconds, written)
        except RequestFailed as error:
            # Nothing was sent yet. Perhaps the cluster's authority is a new one.
            if not (_distrusted(error.__cause__) and self._renew(session)):
                raise
            session = self._session
            response = self._ask(session, path, query, read_seconds, written)
        if response.status == HTTPStatus.UNAUTHORIZED and self._renew(session):
            response.close()
            response = self._ask(self._session, path, query, read_seconds, written)
        try:
            if response.status not in _DONE:
                raise self._failure(response)
            yield response
        finally:
            # After a whole answer the connection is back in the pool already, for others to use.
            response.close()

    def chunks(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        """Yield a body as it comes.

        Raises:
            RequestFailed: It breaks off, or the server falls silent.
        """
        with self._failures():
            yield from response.stream(_MOST_AT_ONCE, decode_content=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RequestFailed(UNREACHABLE, f"{self.host}: {_network(error)}") from error

    def _ask(
        self,
        session: _Session,
        path: str,
        query: Query | None,
        read_seconds: float,
        written: _Written | None,
    ) -> BaseHTTPResponse:
        headers = {"Accept": JSON, "User-Agent": _AGENT}
        if written is not None:
            headers["Content-Type"] = written.content_type
        try:
            token = session.configuration.get_api_key_with_prefix(
                "BearerToken", alias="authorization"
            )
        except BROKEN as error:
            raise RequestFailed(
                HTTPStatus.UNAUTHORIZED, f"{self.source}: {reason(error)}"
            ) from error
        if token:
            headers["Authorization"] = token.strip()
        url = f"{session.configuration.host}{path}"
        with self._failures():
            response = session.pool.request(
                written.method if written else "GET",
                f"{url}?{urlencode(query)}" if query else url,
                body=written.body if written else None,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                retries=False,
                preload_content=False,
            )
        # What stands between may answer with errors of its own, and has its own clock.
        if response.status in _DONE:
            self._note_date(response.headers.get("Date", ""))
        return response

    def _note_date(self, date: str) -> None:
        with suppress(TypeError, ValueError, OverflowError):
            ahead = parsedate_to_datetime(date).timestamp() - time.time()
            # It tells whole seconds: within one, both clocks may well be the same.
            self.seconds_ahead = ahead if abs(ahead) > 1 else 0.0

    def _failure(self, response: BaseHTTPResponse) -> RequestFailed:
        told = ""
        # Where the body cannot be read, the status alone says enough.
        with suppress(RequestFailed), self._failures():
            told = _message(response.read(_MOST_AT_ONCE, decode_content=True))
        wait = response.headers.get("Retry-After", "")
        status = f"{response.status} {response.reason or ''}".strip()
        if response.status == HTTPStatus.UNAUTHORIZED:
            told = f"does not accept the credentials of {self.source}"
        return RequestFailed(
            response.status,
            f"{self.host}: {told} ({status})" if told else f"{self.host}: {status}",
            float(wait) if wait.isdecimal() else 0.0,
        )

    def _renew(self, refused: _Session) -> bool:
        """Read settings again that did not do; say whether there are others to try now.

        They did not do if the server refused the credentials, or was refused itself: a cluster's
        authority is replaced too.
        """
        with self._lock:
            if self._session is not refused:
                return True
            if time.monotonic() - refused.read < _RENEW_SECONDS:
                return False
            with suppress(ClusterError):
                self._session = self._new_session()
            return self._session is not refused

    def _new_session(self) -> _Session:
        configuration = Configuration()
        configuration.connection_pool_maxsize = _POOL_SIZE
        context = self._credentials.read(configuration)
        # They are in the context now.
        configuration.ssl_ca_cert = configuration.cert_file = configuration.key_file = None
        try:
            pool = RESTClientObject(configuration).pool_manager
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ClusterError(f"{self.source}: {reason(error)}") from error
        if context is not None:
            pool.connection_pool_kw["ssl_context"] = context
        return _Session(configuration, pool, time.monotonic())


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """Return the connection that is meant; see :func:`webhook.cluster.credentials.find`.

    Raises:
        ClusterError: There is none, or its settings are broken.
    """
    return Connection(find(kubeconfig, context))


def _message(body: bytes) -> str:
    """Return what a Status of the API server says, else the body's first words."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = body.decode(errors="replace")
    if isinstance(told, dict):
        told = told.get("message")
    return one_line(told) if isinstance(told, str) else ""


def _distrusted(error: BaseException | None) -> bool:
    """Tell whether a server was refused because of its certificate."""
    return (
        isinstance(error, urllib3.exceptions.SSLError)
        and bool(error.args)
        and isinstance(error.args[0], ssl.SSLCertVerificationError)
    )


def _network(error: BaseException) -> str:
    """Say what kept an answer from coming, as a person would."""
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "the server fell silent"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "cannot be reached: its name is not known"
    # A refused connection is a kind of timeout to urllib3, so it is asked about first.
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        cause = error.__cause__ or error.__context__
        what = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
        return f"cannot be reached: {what.lower()}"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"cannot be reached: no answer within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, urllib3.exceptions.SSLError):
        cause = error.args[0] if error.args else error
        return f"TLS failed: {getattr(cause, 'verify_message', '') or one_line(str(cause))}"
    return f"the connection broke off: {one_line(str(error))}"

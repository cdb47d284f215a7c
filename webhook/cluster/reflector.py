"""Follows one kind of object in a cluster: reads all of it, then every change.

The protocol is Kubernetes': https://kubernetes.io/docs/reference/using-api/api-concepts/
(list, watch, bookmarks, streaming lists, 410 Gone).
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from webhook.cluster.credentials import one_line
from webhook.cluster.errors import UNREACHABLE, RequestFailed
from webhook.cluster.listing import FIRST_PAGE, pages
from webhook.cluster.resources import served_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3.response import BaseHTTPResponse

    from webhook.cluster.connection import Connection
    from webhook.cluster.pacing import Pacer
    from webhook.cluster.resources import Resource
    from webhook.model.fields import Object

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
# The first wait after a failure; doubled with every further one.
FIRST_WAIT = 0.4
LONGEST_WAIT = 20.0
# A kind that is not installed is looked for again, and before what is known of it is too old.
LOOK_AGAIN = 20.0
# A stream that lived for so long was healthy.
HEALTHY = 10.0
# Failures in a row after which a watch is not resumed, but the kind read anew.
RESUMED = 3
LONGEST_LINE = 32 * 1024 * 1024
SHORTEST_WATCH = 1.0
# Beyond the end that the server was told, until its silence counts as broken.
GRACE = 5.0
# Seconds after which the server ends a stream of all objects that is still not at its end.
LONGEST_READING = 600.0
# Seconds without a byte after which such a stream counts as broken.
SILENCE = 60.0
_NO_STREAMING = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class Sink(Protocol):
    """Takes what is found of one kind."""

    def put(self, obj: Object) -> str:
        """Take an object that is there; return its key, "" where it cannot be read."""

    def drop(self, obj: Object) -> None:
        """Forget an object that is there no more."""

    def filled(self, keys: set[str]) -> None:
        """Know all there are: what is not among these keys is there no more."""

    def not_installed(self) -> None:
        """Know that the kind is not served, so that there are none."""

    def alive(self) -> None:
        """Know that what is known is what the API server has now."""

    def failed(self, error: RequestFailed) -> None:
        """Know why nothing comes."""


@dataclass(frozen=True, slots=True)
class Following:
    """What holds for all kinds, at this moment.

    Attributes:
        stale_after: Without a sign of life for so many seconds facts are too old; watches are
            renewed well before.
        all_pods: Whether all pods are wanted, not only those of virtual machines.
        settle_after: For so many seconds labels may still come to a node that is new, or lost one.
    """

    stale_after: float
    all_pods: bool
    settle_after: float


class Reflector:
    """Keeps a sink in step with one kind; lives in a thread of its own."""

    def __init__(
        self,
        connection: Connection,
        resource: Resource,
        sink: Sink,
        following: Callable[[], Following],
        pacer: Pacer,
    ) -> None:
        """Take whom to ask for what, who takes it, under which settings, and at whose pace."""
        self._connection = connection
        self._resource = resource
        self._sink = sink
        self._following = following
        self._pacer = pacer
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"follow-{resource.name}", daemon=True
        )
        self._jitter = random.Random()  # noqa: S311 - it spreads requests, and protects nothing
        self._version: str | None = None
        # Where to go on watching; "" where everything is to be read anew.
        self._revision = ""
        self._selectors: dict[str, str] = {}
        self._streams = True
        # Whether the next reading goes by pages: the stream broke off before it told of all.
        self._by_pages = False
        self._seen: set[str] | None = None
        self._failures = 0

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; a request under way keeps it until it ends."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                wait = self._turn()
                if time.monotonic() - began < 1.0 and not wait:
                    # A server that ends every watch at once must not be asked in a circle.
                    wait = self._backoff()
                else:
                    self._failures = 0
            except RequestFailed as error:
                if time.monotonic() - began > HEALTHY:
                    self._failures = 0
                self._after(error)
                self._sink.failed(error)
                wait = max(self._backoff(), min(error.retry_after, LONGEST_WAIT))
            except Exception as error:
                # A fault of the guard itself; without this thread the kind would only grow old.
                self._revision, self._seen = "", None
                what = f"{type(error).__name__}: {one_line(str(error))}"
                self._sink.failed(RequestFailed(UNREACHABLE, f"a fault of migration-guard: {what}"))
                wait = self._backoff()
            self._stopping.wait(wait)

    def _turn(self) -> float:
        """Ask once, and take all that comes of it; return how long to wait after that."""
        if self._version is None:
            self._version = served_version(self._connection, self._resource)
            if self._version is None:
                self._sink.not_installed()
                return min(LOOK_AGAIN, self._following().stale_after / 2) * self._spread()
        selectors = self._resource.selectors(all_pods=self._following().all_pods)
        if selectors != self._selectors:
            self._selectors, self._revision = selectors, ""
        if not self._revision:
            self._read_all(self._version)
        self._watch(self._version)
        return 0.0

    def _read_all(self, version: str) -> None:
        """Read all there are: as a stream, or by pages where a stream did not come to its end."""
        if self._streams and not self._by_pages:
            try:
                self._read_stream(version)
            except RequestFailed as error:
                if error.status not in _NO_STREAMING:
                    raise
                self._streams = False
            else:
                return
        self._read_pages(version)

    def _read_stream(self, version: str) -> None:
        self._seen = set()
        query = {
            **self._watching(LONGEST_READING),
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
        }
        path = self._resource.path(version)
        with self._connection.open(path, query, read_seconds=SILENCE) as response:
            self._by_pages = True
            for _ in self._events(response):
                if self._seen is None:
                    # What follows is for a watch, which ends in time to be a sign of life.
                    self._by_pages = False
                    return
        if not self._stopping.is_set():
            raise RequestFailed(UNREACHABLE, f"{self._connection.host}{path}: ended half-read")

    def _read_pages(self, version: str) -> None:
        # Should this fail too, the stream has its turn again.
        self._by_pages = False
        self._seen = set()
        revision = ""
        listed = pages(self._connection, self._resource, version, self._selectors, limit=FIRST_PAGE)
        for page in listed:
            revision = page.revision
            for obj in page.objects:
                with self._pacer:
                    self._take(obj)
        self._filled(revision)

    def _watch(self, version: str) -> None:
        stale_after = self._following().stale_after
        # Each beginning and end is a sign of life, and several fit into the time until facts age.
        seconds = max(stale_after / 2 * self._spread(), SHORTEST_WATCH)
        query = {**self._watching(seconds), "resourceVersion": self._revision}
        path = self._resource.path(version)
        with self._connection.open(path, query, read_seconds=seconds + GRACE) as response:
            self._sink.alive()
            for _ in self._events(response):
                pass

    def _events(self, response: BaseHTTPResponse) -> Iterator[None]:
        """Take in what a watch tells, a line at a time, until it ends or following does."""
        for line in _lines(self._connection.chunks(response)):
            if self._stopping.is_set():
                return
            if line:
                with self._pacer:
                    self._event(line)
            yield

    def _watching(self, seconds: float) -> dict[str, str]:
        """Return the part of a query that is every watch's."""
        return {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(seconds)),
        }

    def _event(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
            kind, obj = event["type"], event["object"]
            revision = "" if kind == "ERROR" else str(obj["metadata"]["resourceVersion"])
        except (orjson.JSONDecodeError, LookupError, TypeError) as error:
            raise RequestFailed(
                UNREACHABLE, f"{self._connection.host}: a watch of {self._resource.name} is garbled"
            ) from error
        if kind in ("ADDED", "MODIFIED"):
            self._take(obj)
        elif kind == "DELETED":
            self._sink.drop(obj)
        elif kind == "BOOKMARK":
            if (obj["metadata"].get("annotations") or {}).get(INITIAL_EVENTS_END) == "true":
                self._filled(revision)
        elif kind == "ERROR":
            raise self._told(obj)
        if self._seen is None:
            # Before the end of the initial events a watch cannot be resumed.
            self._revision = revision
            self._sink.alive()

    def _take(self, obj: Object) -> None:
        key = self._sink.put(obj)
        if self._seen is not None:
            self._seen.add(key)

    def _filled(self, revision: str) -> None:
        if self._seen is not None:
            self._sink.filled(self._seen)
        self._seen = None
        self._revision = revision

    def _told(self, status: Any) -> RequestFailed:
        """Return the failure that an ERROR event tells of."""
        status = status if isinstance(status, dict) else {}
        code = status.get("code")
        message = one_line(str(status.get("message", "no reason given")))
        return RequestFailed(
            code if isinstance(code, int) else UNREACHABLE,
            f"{self._connection.host}: the watch of {self._resource.name} ended: {message}",
        )

    def _after(self, error: RequestFailed) -> None:
        """Decide where to go on after a failure."""
        if error.status == HTTPStatus.GONE:
            self._revision = ""
        elif error.status == HTTPStatus.NOT_FOUND:
            self._revision, self._version = "", None
        elif error.status == HTTPStatus.FORBIDDEN and not self._revision:
            # An API server that starts forbids everything, discovery too, until it has read who
            # may do what: then the kind was only taken to be there.
            self._version = None
        elif error.status != UNREACHABLE and self._failures + 1 >= RESUMED:
            # Perhaps it is this revision that the server cannot serve.
            self._revision = ""
        self._seen = None

    def _spread(self) -> float:
        """Return a factor that keeps the requests of many kinds and replicas apart."""
        return self._jitter.uniform(0.7, 1.0)

    def _backoff(self) -> float:
        """Count a failure; return how long to wait after it."""
        longest: float = min(FIRST_WAIT * 2.0**self._failures, LONGEST_WAIT)
        self._failures = min(self._failures + 1, 30)
        return longest * self._jitter.uniform(0.5, 1.0)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines; what follows the last line end is not one."""
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest.append(first)
        size += len(first)
        if size > LONGEST_LINE:
            raise RequestFailed(UNREACHABLE, "a line of a watch is longer than any object can be")
        if more:
            yield b"".join(rest)
            yield from more[:-1]
            rest, size = [more[-1]], len(more[-1])

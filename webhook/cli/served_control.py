"""The part of ``serve`` that one replica alone does: it enforces the deadlines of migrations."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from socket import gethostname
from typing import TYPE_CHECKING

from webhook.cli.ids import new_id
from webhook.cli.printing import say
from webhook.cluster.credentials import one_line
from webhook.cluster.errors import RequestFailed
from webhook.control.deadlines import Deadlines, Standing
from webhook.control.lease import RENEW_SECONDS, Lease
from webhook.model.fields import InvalidObject
from webhook.review.completion import timestamp
from webhook.review.requester import GUARD, GUARD_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cluster.connection import Connection
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Decision
    from webhook.serving.metrics import Metrics
    from webhook.serving.readiness import Readiness

PART = "migrations"
"""Its name on the readiness board and in the log."""
LEASE = "migration-guard"

_LOOK_SECONDS = 1.0
_STOP_SECONDS = 3.0


class ServedControl:
    """Enforces deadlines from a thread of its own, while this replica holds the lease.

    Whatever becomes of it, the server stays ready: it can still answer reviews.
    """

    def __init__(
        self,
        connection: Connection,
        snapshot: Callable[[], Snapshot],
        configuration: Callable[[], Configuration],
        keep: Callable[[Review, Decision, Snapshot], None],
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        """Take the way to the cluster; :meth:`start` begins.

        Args:
            connection: The way to the cluster.
            snapshot: The facts of the moment.
            configuration: The settings of the moment.
            keep: Logs, counts and keeps a decision; returns once it is on disk, or cannot be.
            readiness: Where it is told who leads, and how migrations stand.
            metrics: Likewise.
        """
        # Two processes of one host name, one after the other, are not to be taken for one.
        identity = f"{gethostname()}_{secrets.token_hex(8)}"
        self._connection = connection
        self._snapshot = snapshot
        self._lease = Lease(
            connection, GUARD_NAMESPACE, LEASE, identity, monotonic=time.monotonic, clock=_clock
        )
        self._deadlines = Deadlines(
            connection,
            snapshot,
            configuration,
            keep,
            leads=lambda: self._lease.held,
            user=lambda: self._user,
            new_id=new_id,
            clock=self._servers_clock,
            monotonic=time.monotonic,
            log=self._say,
        )
        self._readiness = readiness
        self._metrics = metrics
        self._user = GUARD
        self._failure = ""
        self._stopping = threading.Event()
        # Apart from the rest: a request that takes its time is not to cost the lease.
        self._leading = threading.Thread(target=self._lead, name="lease", daemon=True)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        readiness.report(PART, True, "nobody is known to lead yet")

    def start(self) -> None:
        """Begin to ask for the lease."""
        self._leading.start()
        self._thread.start()

    def stop(self) -> None:
        """Carry out what is begun and give the lease back, in three seconds at most."""
        self._stopping.set()
        if self._leading.is_alive():
            self._leading.join(_STOP_SECONDS)

    def _lead(self) -> None:
        with suppress(RequestFailed, InvalidObject):
            # Usually the account of the manifests; whoever runs the server by hand has another.
            self._user = self._connection.username() or GUARD
        while not self._stopping.is_set():
            self._hold()
            self._stopping.wait(RENEW_SECONDS)
        # What is begun is carried out under the lease.
        self._thread.join()
        try:
            self._lease.release()
        except RequestFailed as error:
            self._say(f"the lease is not given back, and runs out by itself: {error}")

    def _run(self) -> None:
        while not self._stopping.is_set():
            held = self._lease.held
            try:
                standing = self._deadlines.look(self._goes_on) if held else None
                if standing is None:
                    self._deadlines.settle()
                self._tell(self._words(standing), standing)
            except Exception as error:
                # The thread must live: without it no deadline is enforced.
                what = f"a fault of migration-guard itself: {type(error).__name__}"
                self._tell(f"warning: deadlines are not enforced: {what}", None)
                self._say(f"{what}: {one_line(str(error))}")
            self._stopping.wait(_LOOK_SECONDS)
        self._deadlines.settle()

    def _goes_on(self) -> bool:
        return not self._stopping.is_set()

    def _servers_clock(self) -> datetime:
        return _clock() + timedelta(seconds=self._connection.seconds_ahead)

    def _hold(self) -> None:
        failure = ""
        try:
            if self._snapshot().stale:
                # Whoever does not see the migrations ends none; another replica may see them.
                return
            self._lease.hold()
        except Exception as error:
            known = isinstance(error, RequestFailed)
            failure = str(error) if known else f"{type(error).__name__}: {one_line(str(error))}"
        if failure != self._failure:
            self._failure = failure
            self._say(f"no lease: {failure}" if failure else "the lease is to be had again")

    def _tell(self, words: str, standing: Standing | None) -> None:
        running, overdue = (standing.running, standing.overdue) if standing else (0, 0)
        self._metrics.note_deadlines(leads=standing is not None, running=running, overdue=overdue)
        self._readiness.report(PART, True, words)

    def _words(self, standing: Standing | None) -> str:
        if standing is None and self._snapshot().stale:
            return "warning: deadlines are not enforced here: facts are missing or too old"
        if standing is None and self._failure:
            return f"warning: deadlines are not enforced here: {self._failure}"
        if standing is None:
            return f"deadlines are enforced by {one_line(self._lease.holder) or 'nobody yet'}"
        if standing.switched_off:
            return "warning: deadlines are not enforced: the webhook configuration was deleted"
        words = f"deadlines are enforced here; {standing.running} run"
        if standing.next_end is not None:
            words += f", the next must end by {timestamp(standing.next_end)}"
        if standing.overdue:
            words += f"; warning: {standing.overdue} past their deadline"
        return words

    def _say(self, text: str) -> None:
        say(f"{PART}: {text}")


def _clock() -> datetime:
    return datetime.now(UTC)

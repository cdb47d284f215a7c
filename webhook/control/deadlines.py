"""Deadlines of migrations that run: made true when the copying starts, enforced when they pass."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from webhook.cluster.connection import JSON, MERGE_PATCH
from webhook.cluster.errors import RequestFailed
from webhook.cluster.installation import switched_off
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.model.migration import Migration
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.review.decision import Outcome
from webhook.review.overruns import decide_overrun, review_of_abort, running_migration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Decision
    from webhook.review.overruns import RunningMigration

ANSWER_SECONDS = 5.0
"""How long the API server may be silent when it is asked."""
PAUSE_SECONDS = 10.0
"""After a request about a migration has failed, until the next about it."""

_NAMESPACES = "/apis/kubevirt.io/v1/namespaces"
_OVER = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the migrations that run stand.

    Attributes:
        running: How many copy, and have a limit.
        overdue: How many of them have passed it.
        next_end: When the next of the others has; None where there is none.
        switched_off: Nothing was done about one, because the guard is switched off.
    """

    running: int = 0
    overdue: int = 0
    next_end: datetime | None = None
    switched_off: bool = False


class Deadlines:
    """Looks after the deadlines of a cluster's migrations; to be used from one thread.

    What is due is found among the facts. Before a migration is ended it is fetched anew, with its
    VMI, so that facts that lag behind end nothing; and it is ended only if it is unchanged since.
    Whoever deletes the webhook configurations has switched the guard off, and nothing is written
    or ended any more.
    """

    def __init__(
        self,
        connection: Connection,
        facts: Callable[[], Snapshot],
        configuration: Callable[[], Configuration],
        keep: Callable[[Review, Decision, Snapshot], None],
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        """Take where facts and settings come from, and who is told.

        Args:
            connection: The way to the cluster.
            facts: Returns the facts of the moment.
            configuration: Returns the settings of the moment.
            keep: Logs, counts and keeps a decision; returns once it is on disk, or cannot be.
            new_id: Makes decision ids.
            clock: The time, aware.
            monotonic: A clock that never jumps, in seconds.
            log: Takes a line about what could not be done.
        """
        self._connection = connection
        self._facts = facts
        self._configuration = configuration
        self._keep = keep
        self._new_id = new_id
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        # By the migration's uid: what was written, what was decided, and when to try again.
        self._written: dict[str, object] = {}
        self._decided: dict[str, Outcome] = {}
        self._again: dict[str, float] = {}
        self._switched_off = False

    def look(self, leads: Callable[[], bool]) -> Standing:
        """Look at every migration that runs, and do what is due.

        Args:
            leads: Tells whether this replica may still act; asked before each.
        """
        snapshot, now = self._facts(), self._clock()
        found = list(self._running(snapshot))
        self._forget_all_but({running.migration.uid for running in found})
        for running in found:
            if not leads():
                break
            if self._monotonic() >= self._again.get(running.migration.uid, 0.0):
                self._look_at(running, now, leads)
        ends = [running.ends for running in found if running.ends > now]
        overdue = len(found) - len(ends)
        return Standing(len(found), overdue, min(ends, default=None), self._switched_off)

    def _running(self, snapshot: Snapshot) -> Iterator[RunningMigration]:
        for migration in {m.key: m for m in snapshot.migrations.values()}.values():
            try:
                vmi = snapshot.vmis.get(migration.vmi_key)
                running = running_migration(migration, vmi, snapshot, self._configuration())
            except InvalidObject:
                # The facts say already what cannot be read.
                continue
            if running is not None:
                yield running

    def _forget_all_but(self, uids: set[str]) -> None:
        for known in (self._written, self._decided, self._again):
            for uid in known.keys() - uids:
                del known[uid]

    def _look_at(self, running: RunningMigration, now: datetime, leads: Callable[[], bool]) -> None:
        uid = running.migration.uid
        try:
            if running.overdue(now):
                self._end(running, leads)
            elif running.unwritten and self._written.get(uid) != running.unwritten:
                self._annotate(running)
        except (RequestFailed, InvalidObject) as error:
            self._again[uid] = self._monotonic() + PAUSE_SECONDS
            if not (isinstance(error, RequestFailed) and error.status in _OVER):
                self._log(f"migration {running.migration.key}: {error}")

    def _may_write(self, uid: str) -> bool:
        self._switched_off = switched_off(self._connection, ANSWER_SECONDS)
        if self._switched_off:
            self._again[uid] = self._monotonic() + PAUSE_SECONDS
        return not self._switched_off

    def _annotate(self, running: RunningMigration) -> None:
        migration = running.migration
        if not self._may_write(migration.uid):
            return
        # With the uid, so that one made anew under its name gets nothing of this.
        change = {"metadata": {"uid": migration.uid, "annotations": dict(running.unwritten)}}
        self._send("PATCH", _path(migration), change, MERGE_PATCH)
        self._written[migration.uid] = running.unwritten

    def _end(self, running: RunningMigration, leads: Callable[[], bool]) -> None:
        uid = running.migration.uid
        decided = self._decided.get(uid)
        if decided is running.outcome and decided is not Outcome.ABORTED:
            return
        obj, fresh = self._fetch(running)
        if fresh is None or fresh.migration.uid != uid or not fresh.overdue(self._clock()):
            return
        if not self._may_write(uid):
            return
        decision = decide_overrun(fresh, self._new_id())
        aborts = decision.outcome is Outcome.ABORTED
        if aborts:
            # A record that says "aborted" is to be true, so all that could prevent it is asked
            # about first: rights, other webhooks, a change since it was fetched.
            self._delete(obj, dry_run=True)
        if decided is not decision.outcome:
            self._keep(review_of_abort(obj), decision, self._facts())
            self._decided[uid] = decision.outcome
        if aborts and leads():
            self._delete(obj)

    def _fetch(self, running: RunningMigration) -> tuple[Object, RunningMigration | None]:
        migration = running.migration
        obj = self._get(_path(migration))
        vmi = self._get(_path(migration, "virtualmachineinstances", migration.vmi_name))
        fresh = running_migration(
            Migration.from_object(obj),
            VirtualMachineInstance.from_object(vmi),
            self._facts(),
            self._configuration(),
        )
        return obj, fresh

    def _delete(self, obj: Object, *, dry_run: bool = False) -> None:
        metadata = fields.mapping(obj, "metadata")
        unchanged = {key: fields.text(metadata, key) for key in ("uid", "resourceVersion")}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": unchanged}
        if dry_run:
            options["dryRun"] = ["All"]
        self._send("DELETE", _path(Migration.from_object(obj)), options)

    def _get(self, path: str) -> Any:
        return self._connection.get(path, read_seconds=ANSWER_SECONDS)

    def _send(self, method: str, path: str, body: object, content_type: str = JSON) -> None:
        self._connection.send(method, path, body, content_type, read_seconds=ANSWER_SECONDS)


def _path(
    migration: Migration, resource: str = "virtualmachineinstancemigrations", name: str = ""
) -> str:
    namespace, named = quote(migration.namespace, safe=""), quote(name or migration.name, safe="")
    return f"{_NAMESPACES}/{namespace}/{resource}/{named}"

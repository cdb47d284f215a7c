"""Deadlines of migrations that run: made true when the copying starts, enforced when they pass."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from webhook.cluster.connection import JSON, MERGE_PATCH
from webhook.cluster.credentials import one_line
from webhook.cluster.errors import RequestFailed
from webhook.cluster.installation import switched_off
from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.model.migration import Migration
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.model.wording import escaped
from webhook.review.decision import Outcome
from webhook.review.overruns import (
    decide_not_ended,
    decide_overrun,
    review_of_overrun,
    running_migration,
)

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
LONGEST_PAUSE_SECONDS = 320.0
"""After a request about a migration has failed, until the next about it: twice as long each
time."""

_NAMESPACES = "/apis/kubevirt.io/v1/namespaces"
_OVER = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the migrations that run stand.

    Attributes:
        running: How many copy, and have a limit.
        overdue: How many of them have passed it.
        next_end: When the next of the others has; None where there is none.
        switched_off: Nothing is done about them, because the guard is switched off.
    """

    running: int = 0
    overdue: int = 0
    next_end: datetime | None = None
    switched_off: bool = False


class _Try(NamedTuple):
    """The last try about a migration that failed: when the next may be, and the pause before it."""

    again: float = float("-inf")
    pause: float = 0.0


class _Fetched(NamedTuple):
    """A migration as the API server has it at this moment; None where it does not run any more."""

    obj: Object
    running: RunningMigration | None


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
        leads: Callable[[], bool],
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
            leads: Tells whether this replica leads at this moment.
            new_id: Makes decision ids.
            clock: The time of the API server, aware.
            monotonic: A clock that never jumps, in seconds.
            log: Takes a line about what could not be done.
        """
        self._connection = connection
        self._facts = facts
        self._configuration = configuration
        self._keep = keep
        self._leads = leads
        self._new_id = new_id
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        self._switched_off = False
        self._asked_whether = float("-inf")
        # By the migration's uid: when it was first seen to copy, what was written on it and
        # decided about it, the decision to end it that nobody has carried out, and what failed.
        self._seen: dict[str, datetime] = {}
        self._written: dict[str, object] = {}
        self._decided: dict[str, Outcome] = {}
        self._aborting: dict[str, Decision] = {}
        self._tries: dict[str, _Try] = {}

    def look(self, goes_on: Callable[[], bool] = lambda: True) -> Standing:
        """Look at every migration that runs, and do what is due.

        Args:
            goes_on: Tells whether another one is to be looked at; what is begun is carried out.
        """
        snapshot, now = self._facts(), self._clock()
        self._forget_all_but({migration.uid for migration in snapshot.migrations.values()})
        found = list(self._running(snapshot, now))
        self._look_whether_switched_off(any_run=bool(found))
        # Where requests take their time, those that were tried last wait for the others.
        for running in sorted(found, key=lambda one: self._try_of(one).again):
            if self._switched_off or not (self._leads() and goes_on()):
                break
            if self._monotonic() >= self._try_of(running).again:
                self._look_at(running, now)
        ends = [running.ends for running in found if running.ends > now]
        overdue = len(found) - len(ends)
        return Standing(len(found), overdue, min(ends, default=None), self._switched_off)

    def _running(self, snapshot: Snapshot, now: datetime) -> Iterator[RunningMigration]:
        for migration in {m.key: m for m in snapshot.migrations.values()}.values():
            seen = self._seen.get(migration.uid, now)
            try:
                vmi = snapshot.vmis.get(migration.vmi_key)
                running = running_migration(migration, vmi, snapshot, self._configuration(), seen)
            except Exception as error:
                # Whatever is wrong with one, the others are to be ended.
                if self._monotonic() >= self._tries.get(migration.uid, _Try()).again:
                    self._failed(migration, error)
                continue
            if running is not None:
                self._seen[migration.uid] = seen
                yield running

    def _forget_all_but(self, uids: set[str]) -> None:
        for known in (self._seen, self._written, self._decided, self._aborting, self._tries):
            for uid in known.keys() - uids:
                del known[uid]

    def _try_of(self, running: RunningMigration) -> _Try:
        return self._tries.get(running.migration.uid, _Try())

    def _look_at(self, running: RunningMigration, now: datetime) -> None:
        uid = running.migration.uid
        try:
            if running.overdue(now):
                self._overrun(running)
            elif running.unwritten and self._written.get(uid) != running.unwritten:
                self._annotate(running)
        except Exception as error:
            self._failed(running.migration, error)
        else:
            self._tries.pop(uid, None)

    def _failed(self, migration: Migration, error: Exception) -> None:
        """Leave a migration alone for a while, and say why."""
        pause = self._tries.get(migration.uid, _Try()).pause * 2 or PAUSE_SECONDS
        pause = min(pause, LONGEST_PAUSE_SECONDS)
        self._tries[migration.uid] = _Try(self._monotonic() + pause, pause)
        text = str(error)
        if not isinstance(error, RequestFailed | InvalidObject):
            text = f"a fault of migration-guard itself: {type(error).__name__}: {one_line(text)}"
        self._log(f"migration {escaped(migration.key)}: {text}")

    def _look_whether_switched_off(self, *, any_run: bool) -> None:
        if any_run and self._monotonic() >= self._asked_whether + PAUSE_SECONDS:
            try:
                self._may_write()
            except RequestFailed as error:
                self._log(f"not known whether the guard is switched off: {error}")

    def _may_write(self) -> bool:
        self._asked_whether = self._monotonic()
        self._switched_off = switched_off(self._connection, ANSWER_SECONDS)
        return not self._switched_off

    def _annotate(self, running: RunningMigration) -> None:
        migration = running.migration
        if not self._may_write():
            return
        # With the uid, so that one made anew under its name gets nothing of this.
        change = {"metadata": {"uid": migration.uid, "annotations": dict(running.unwritten)}}
        try:
            self._send("PATCH", _path(migration), change, MERGE_PATCH)
        except RequestFailed as error:
            if error.status in _OVER:
                return
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            # By a role or by a rule, the guard's own among them: another try is refused likewise.
            where = f"migration {escaped(migration.key)}"
            self._log(f"{where}: its true deadline is not written: {error}")
        self._written[migration.uid] = running.unwritten

    def _overrun(self, running: RunningMigration) -> None:
        uid = running.migration.uid
        decided = self._decided.get(uid)
        if decided is running.outcome and decided is not Outcome.ABORTED:
            return
        if not self._may_write():
            return
        fetched = self._fetch(running)
        fresh = fetched.running
        if uid in self._aborting:
            self._carry_out(running, fetched)
        elif fresh is None or not fresh.overdue(self._clock()):
            return
        elif fresh.outcome is Outcome.ABORTED:
            self._abort(fresh, fetched.obj)
        else:
            self._tell(fetched.obj, decide_overrun(fresh, self._new_id()))

    def _abort(self, running: RunningMigration, obj: Object) -> None:
        # A record that says "aborted" is to be true, so all that could prevent it is asked about
        # first: rights, other webhooks, a change since it was fetched.
        if not self._delete(obj, dry_run=True) or not self._leads():
            return
        decision = decide_overrun(running, self._new_id())
        self._tell(obj, decision)
        self._aborting[running.migration.uid] = decision
        # The disk may have taken its time.
        self._carry_out(running, self._fetch(running))

    def _carry_out(self, running: RunningMigration, fetched: _Fetched) -> None:
        """End a migration as was decided, or take that back."""
        fresh, uid = fetched.running, running.migration.uid
        if fresh is not None and fresh.transfer.ending:
            # Perhaps by a request of this guard to which no answer came.
            del self._aborting[uid]
            return
        why = "it has ended by itself"
        if fresh is not None:
            why = fresh.spared or "an override or other settings allow it to go on"
            if fresh.overdue(self._clock()) and fresh.outcome is Outcome.ABORTED:
                if not self._leads():
                    return
                if self._delete(fetched.obj):
                    del self._aborting[uid]
                    return
                why = "it has changed at that moment"
        aborted = self._aborting.pop(uid)
        self._tell(fetched.obj, decide_not_ended(fresh or running, aborted, why))

    def _tell(self, obj: Object, decision: Decision) -> None:
        self._keep(review_of_overrun(obj, decision), decision, self._facts())
        self._decided[fields.text(obj, "metadata", "uid")] = decision.outcome

    def _fetch(self, running: RunningMigration) -> _Fetched:
        """Return a migration, and whether it runs, as the API server has both now."""
        migration = running.migration
        known: Object = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {key: getattr(migration, key) for key in ("namespace", "name", "uid")},
            "spec": {"vmiName": migration.vmi_name},
        }
        try:
            obj = self._get(_path(migration))
            vmi = self._get(_path(migration, "virtualmachineinstances", migration.vmi_name))
        except RequestFailed as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return _Fetched(known, None)
        if fields.text(obj, "metadata", "uid") != migration.uid:
            return _Fetched(known, None)
        fresh = running_migration(
            Migration.from_object(obj),
            VirtualMachineInstance.from_object(vmi),
            self._facts(),
            self._configuration(),
            self._seen.get(migration.uid),
        )
        return _Fetched(obj, fresh)

    def _delete(self, obj: Object, *, dry_run: bool = False) -> bool:
        """Delete a migration if it is as it was fetched; say whether it was."""
        metadata = fields.mapping(obj, "metadata")
        unchanged = {key: fields.text(metadata, key) for key in ("uid", "resourceVersion")}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": unchanged}
        if dry_run:
            options["dryRun"] = ["All"]
        try:
            self._send("DELETE", _path(Migration.from_object(obj)), options)
        except RequestFailed as error:
            if error.status in _OVER:
                return False
            raise
        return True

    def _get(self, path: str) -> Any:
        return self._connection.get(path, read_seconds=ANSWER_SECONDS)

    def _send(self, method: str, path: str, body: object, content_type: str = JSON) -> None:
        self._connection.send(method, path, body, content_type, read_seconds=ANSWER_SECONDS)


def _path(
    migration: Migration, resource: str = "virtualmachineinstancemigrations", name: str = ""
) -> str:
    namespace, named = quote(migration.namespace, safe=""), quote(name or migration.name, safe="")
    return f"{_NAMESPACES}/{namespace}/{resource}/{named}"

"""Deadlines of migrations that run: made true when the copying starts, enforced when they pass."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import quote

from webhook.cluster.connection import JSON, MERGE_PATCH
from webhook.cluster.credentials import one_line
from webhook.cluster.errors import RequestFailed
from webhook.cluster.installation import switched_off
from webhook.control.lease import ANSWER_SECONDS
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
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from webhook.cluster.connection import Connection
    from webhook.model.fields import Object
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review
    from webhook.review.decision import Decision
    from webhook.review.overruns import RunningMigration

PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 320.0
"""After a request about a migration has failed, until the next about it: twice as long each
time."""

_NAMESPACES = "/apis/kubevirt.io/v1/namespaces"
_OVER = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
_JUDGE, _SETTLE = "judge", "settle"
_Act: TypeAlias = "Callable[[RunningMigration], None]"
_Due: TypeAlias = "tuple[RunningMigration, _Act]"


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
    """A migration as the API server has it at this moment.

    Attributes:
        there: Whether it is there; ``obj`` then is what was fetched.
        running: None where it does not run, or has no deadline any more.
    """

    obj: Object
    there: bool
    running: RunningMigration | None


@dataclass(slots=True)
class _Begun:
    """The end of a migration that is on record, and not carried out yet.

    Attributes:
        asked: It was asked for; whether it was taken is not known.
    """

    running: RunningMigration
    decision: Decision
    asked: bool = False


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
        user: Callable[[], str],
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
            user: Tells as whom the guard asks the API server.
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
        self._user = user
        self._new_id = new_id
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        # None while the API server does not say.
        self._is_on: bool | None = True
        self._asked_whether = float("-inf")
        # By the migration's uid: when it was first seen to copy, what was written on it, decided
        # about it, and begun. By that and what is tried: what failed.
        self._seen: dict[str, datetime] = {}
        self._written: dict[str, object] = {}
        self._decided: dict[str, Outcome] = {}
        self._begun: dict[str, _Begun] = {}
        self._tries: dict[tuple[str, str], _Try] = {}

    def look(self, goes_on: Callable[[], bool] = lambda: True) -> Standing:
        """Look at every migration that runs, and do what is due.

        Args:
            goes_on: Tells whether another one is to be looked at; what is begun is carried out.
        """
        snapshot, now = self._facts(), self._clock()
        self._forget_all_but({migration.uid for migration in snapshot.migrations_under_way})
        self.settle()
        found = list(self._running(snapshot, now))
        if found and self._monotonic() >= self._asked_whether + PAUSE_SECONDS:
            self._ask_whether_on()
        # Where requests take their time, those that were tried last wait for the others.
        for running, act in sorted(self._due(found, now), key=self._again):
            if not (self._leads() and goes_on() and self._ask_whether_on()):
                break
            with self._trying(running.migration, act.__name__):
                act(running)
        ends = [running.ends for running in found if running.ends > now]
        overdue, switched_off = len(found) - len(ends), bool(found) and self._is_on is False
        return Standing(len(found), overdue, min(ends, default=None), switched_off)

    def settle(self) -> None:
        """Carry out what is on record and was not, or take it back; also where others lead."""
        for begun in list(self._begun.values()):
            if not self._pauses(begun.running.migration, _SETTLE):
                with self._trying(begun.running.migration, _SETTLE):
                    self._carry_out(begun)

    def _running(self, snapshot: Snapshot, now: datetime) -> Iterator[RunningMigration]:
        for migration in snapshot.migrations_under_way:
            if self._pauses(migration, _JUDGE):
                continue
            seen = self._seen.get(migration.uid, now)
            running = None
            # Whatever is wrong with one, the others are to be ended.
            with self._trying(migration, _JUDGE):
                vmi = snapshot.vmis.get(migration.vmi_key)
                running = running_migration(migration, vmi, snapshot, self._configuration(), seen)
            if running is not None:
                self._seen[migration.uid] = seen
                yield running

    def _due(self, found: Iterable[RunningMigration], now: datetime) -> Iterator[_Due]:
        for running in found:
            act = self._act_due(running, now)
            if act is not None and not self._pauses(running.migration, act.__name__):
                yield running, act

    def _act_due(self, running: RunningMigration, now: datetime) -> _Act | None:
        uid = running.migration.uid
        if running.overdue(now):
            told = self._decided.get(uid)
            if uid in self._begun or (told is running.outcome and told is not Outcome.ABORTED):
                return None
            return self._overrun
        written = not running.unwritten or self._written.get(uid) == running.unwritten
        return None if written else self._annotate

    def _again(self, due: _Due) -> float:
        running, act = due
        return self._tries.get((running.migration.uid, act.__name__), _Try()).again

    def _forget_all_but(self, uids: set[str]) -> None:
        for known in (self._seen, self._written, self._decided):
            for uid in known.keys() - uids - self._begun.keys():
                del known[uid]
        for key in [k for k in self._tries if k[0] not in uids and k[0] not in self._begun]:
            del self._tries[key]

    def _pauses(self, migration: Migration, what: str) -> bool:
        return self._monotonic() < self._tries.get((migration.uid, what), _Try()).again

    @contextmanager
    def _trying(self, migration: Migration, what: str) -> Iterator[None]:
        """Where something about a migration fails, say why, and leave that alone for a while."""
        key = migration.uid, what
        try:
            yield
        except Exception as error:
            pause = self._tries.get(key, _Try()).pause * 2 or PAUSE_SECONDS
            pause = min(pause, LONGEST_PAUSE_SECONDS)
            self._tries[key] = _Try(self._monotonic() + pause, pause)
            text = str(error)
            if not isinstance(error, RequestFailed | InvalidObject):
                fault = f"a fault of migration-guard itself: {type(error).__name__}"
                text = f"{fault}: {one_line(text)}"
            self._log(f"migration {escaped(migration.key)}: {text}")
        else:
            self._tries.pop(key, None)

    def _ask_whether_on(self) -> bool:
        """Ask whether the guard is switched on; what is not known is a no."""
        self._asked_whether = self._monotonic()
        known, self._is_on = self._is_on, None
        try:
            self._is_on = not switched_off(self._connection, ANSWER_SECONDS)
        except RequestFailed as error:
            if known is not None:
                self._log(f"not known whether the guard is switched off: {error}")
        return bool(self._is_on)

    def _annotate(self, running: RunningMigration) -> None:
        migration = running.migration
        # With the uid, so that one made anew under its name gets nothing of this.
        change = {"metadata": {"uid": migration.uid, "annotations": dict(running.unwritten)}}
        if self._send("PATCH", _path(migration), change, MERGE_PATCH):
            self._written[migration.uid] = running.unwritten

    def _overrun(self, running: RunningMigration) -> None:
        fetched = self._fetch(running.migration)
        fresh = fetched.running
        if fresh is None or not fresh.overdue(self._clock()):
            return
        decision = decide_overrun(fresh, self._new_id())
        if decision.outcome is not Outcome.ABORTED:
            self._tell(fetched.obj, decision)
            return
        # A record that says "aborted" is to be true, so all that could prevent it is asked about
        # first: rights, other webhooks, a change since it was fetched.
        if not self._delete(fetched.obj, dry_run=True) or not self._leads():
            return
        self._tell(fetched.obj, decision)
        begun = self._begun[fresh.migration.uid] = _Begun(fresh, decision)
        # The disk may have taken its time.
        self._carry_out(begun)

    def _carry_out(self, begun: _Begun) -> None:
        """End a migration as is on record, or take that back."""
        migration = begun.running.migration
        fetched = self._fetch(migration)
        if fields.text(fetched.obj, "metadata", "deletionTimestamp") or (
            begun.asked and not fetched.there
        ):
            # By a request of this guard to which no answer came, or by whoever leads now.
            del self._begun[migration.uid]
            return
        why = self._why_not(fetched.running)
        if not why:
            begun.asked = True
            if self._delete(fetched.obj):
                del self._begun[migration.uid]
                return
            begun.asked, why = False, "it has changed at that moment"
        self._tell(fetched.obj, decide_not_ended(begun.running, begun.decision, why))
        del self._begun[migration.uid]

    def _why_not(self, fresh: RunningMigration | None) -> str:
        if fresh is None:
            return "it has ended by itself, or has no deadline any more"
        if fresh.outcome is not Outcome.ABORTED or not fresh.overdue(self._clock()):
            return fresh.spared or "an override or other settings allow it to go on"
        if not self._leads():
            return "this replica does not lead any more"
        return "the guard was switched off" if self._is_on is False else ""

    def _tell(self, obj: Object, decision: Decision) -> None:
        review = review_of_overrun(obj, decision, self._user())
        self._keep(review, decision, self._facts())
        self._decided[fields.text(obj, "metadata", "uid")] = decision.outcome

    def _fetch(self, migration: Migration) -> _Fetched:
        """Return a migration as the API server has it now, with its VMI."""
        known: Object = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {key: getattr(migration, key) for key in ("namespace", "name", "uid")},
            "spec": {"vmiName": migration.vmi_name},
        }
        obj = self._find(_path(migration))
        if obj is None or fields.text(obj, "metadata", "uid") != migration.uid:
            return _Fetched(known, False, None)
        vmi = self._find(_path(migration, "virtualmachineinstances", migration.vmi_name))
        if vmi is None:
            return _Fetched(obj, True, None)
        fresh = running_migration(
            Migration.from_object(obj),
            VirtualMachineInstance.from_object(vmi),
            self._facts(),
            self._configuration(),
            self._seen.get(migration.uid),
        )
        return _Fetched(obj, True, fresh)

    def _delete(self, obj: Object, *, dry_run: bool = False) -> bool:
        """Delete a migration if it is as it was fetched; say whether it was."""
        metadata = fields.mapping(obj, "metadata")
        unchanged = {key: fields.text(metadata, key) for key in ("uid", "resourceVersion")}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": unchanged}
        if dry_run:
            options["dryRun"] = ["All"]
        return self._send("DELETE", _path(Migration.from_object(obj)), options)

    def _find(self, path: str) -> Object | None:
        found: Object | None = self._connection.find(path, read_seconds=ANSWER_SECONDS)
        return found

    def _send(self, method: str, path: str, body: object, content_type: str = JSON) -> bool:
        """Write something; say whether it is still there, and as it was."""
        try:
            self._connection.send(method, path, body, content_type, read_seconds=ANSWER_SECONDS)
        except RequestFailed as error:
            if error.status in _OVER:
                return False
            raise
        return True


def _path(
    migration: Migration, resource: str = "virtualmachineinstancemigrations", name: str = ""
) -> str:
    namespace, named = quote(migration.namespace, safe=""), quote(name or migration.name, safe="")
    return f"{_NAMESPACES}/{namespace}/{resource}/{named}"

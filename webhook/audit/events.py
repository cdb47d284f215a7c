"""Decisions as Kubernetes Events: what ``kubectl describe vmi`` shows.

``kubectl drain`` never shows a webhook's text, and virtctl drops warnings; the Event on the VMI is
what these users find. It has the decision's id, like the log line and the record.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.audit.record import VALIDATING, rfc3339
from webhook.model.wording import escaped
from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from webhook.audit.record import Record

COMPONENT = "migration-guard"
LABELS = {"app.kubernetes.io/managed-by": COMPONENT}
"""On every Event, for selectors: of a webhook that is not to see the guard's own writes, or of
``kubectl get events -l``."""

LONGEST_MESSAGE = 1024
"""Characters; the API server takes no more (pkg/apis/core/validation/events.go)."""

_LONGEST_NAME = 253
_LONGEST_REASON = 120
_MIGRATION = "VirtualMachineInstanceMigration"
_VMI = "VirtualMachineInstance"
_EVICTION = "Eviction"
_VMI_VERSION = "kubevirt.io/v1"
_NORMAL, _WARNING = "Normal", "Warning"
_SAID = {
    Outcome.REFUSED: (_WARNING, "Refused"),
    Outcome.ABORTED: (_WARNING, "Aborted"),
    Outcome.NOT_ABORTED: (_WARNING, "NotAborted"),
    Outcome.WARNED: (_WARNING, "Warned"),
    Outcome.BLIND: (_WARNING, "NotJudged"),
    Outcome.OVERRIDDEN: (_NORMAL, "Overridden"),
    Outcome.EXEMPT: (_NORMAL, "Exempted"),
}
_ABOUT_ITSELF = ("CREATE", "DELETE", "")
"""What is asked about a migration as a whole: that it begins, that the guard ends it, or nothing,
where it only runs too long."""
REASONS = tuple(
    prefix + word
    for prefix in ("Migration", "Eviction", "Change")
    for outcome, (_, word) in _SAID.items()
    if prefix == "Migration" or outcome not in (Outcome.ABORTED, Outcome.NOT_ABORTED)
)
"""All that can stand as an Event's reason: of a migration, an eviction, or another change."""


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """The object that an Event is about; ``uid`` is "" where it has none yet."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to be told on one object, however often it happens.

    Attributes:
        name: The same for identical decisions, also of another replica, so that they are counted
            in one Event.
        type: Normal or Warning.
    """

    name: str
    about: ObjectReference
    type: str
    reason: str
    message: str

    @property
    def namespace(self) -> str:
        """Where the Event is kept."""
        return self.about.namespace

    def to_object(self, count: int, first: int, last: int, instance: str) -> dict[str, Any]:
        """Return the v1 Event.

        Args:
            count: How often it happened.
            first: When it happened first, in microseconds since 1970.
            last: When it happened last.
            instance: The name of the replica that writes it.
        """
        about = self.about
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
        }
        if about.uid:
            involved["uid"] = about.uid
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": LABELS},
            "involvedObject": involved,
            "type": self.type,
            "reason": self.reason,
            "message": self.message,
            "count": count,
            "firstTimestamp": seconds(first),
            "lastTimestamp": seconds(last),
            "source": {"component": COMPONENT, "host": instance},
            "reportingComponent": COMPONENT,
            "reportingInstance": instance,
        }


def seconds(time: int) -> str:
    """Return microseconds since 1970 as Kubernetes writes a Time: RFC 3339 in whole seconds."""
    return rfc3339(time // 1_000_000 * 1_000_000).replace(".000000", "")


def events_of(record: Record) -> tuple[Event, ...]:
    """Return the Events that tell of a decision: none where nobody needs to be told.

    A decision on a migration is told on its VMI, which stays when the migration does not come to
    be; and on the migration too, where it does. That on an eviction is told on the VMI.
    """
    said = _SAID.get(record.outcome)
    evicts = record.kind == _EVICTION
    heard = record.phase == VALIDATING or evicts
    if said is None or not heard or record.dry_run or not record.namespace:
        return ()
    kind, word = said
    migration = record.kind == _MIGRATION and record.operation in _ABOUT_ITSELF
    reason = ("Eviction" if evicts else "Migration" if migration else "Change") + word
    message = _message(record)
    same = record.fold()
    return tuple(
        Event(_name(about, same), about, kind, reason, message) for about in _objects(record)
    )


def _objects(record: Record) -> list[ObjectReference]:
    written = f"{record.group}/{record.version}"
    evicts = record.kind == _EVICTION
    found = []
    if record.kind == _MIGRATION or evicts:
        namespace, _, name = record.vm.partition("/")
        version = _VMI_VERSION if evicts else written
        if name:
            found.append(ObjectReference(version, _VMI, namespace, name, record.vm_uid))
        if evicts:
            return found
        if record.operation == "CREATE" and not (record.allowed and record.object_uid):
            return found
    if record.name:
        found.append(
            ObjectReference(written, record.kind, record.namespace, record.name, record.object_uid)
        )
    return found


def _name(about: ObjectReference, same: str) -> str:
    told_apart = hashlib.sha256(f"{about.kind}/{about.name}/{about.uid}/{same}".encode())
    end = f".{told_apart.hexdigest()[:16]}"
    return about.name[: _LONGEST_NAME - len(end)].rstrip("-.") + end


def _message(record: Record) -> str:
    """Return what the API server takes of a message, with the decision's id and who overrode."""
    message = record.message or next(iter(record.warnings), "")
    end = "" if record.decision in message else f" Decision {record.decision}."
    if record.outcome is Outcome.OVERRIDDEN:
        reason = escaped(record.override_reason, _LONGEST_REASON)
        end += f' Overridden by "{escaped(record.overridden_by)}": {reason}'
    room = LONGEST_MESSAGE - len(end)
    text = message if len(message) <= room else message[: room - 1] + "…"
    return (text + end).strip()

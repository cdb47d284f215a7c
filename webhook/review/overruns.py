"""Migrations that run: until when they may, and what becomes of one that overruns.

Rule completion-deadline. No request asks about them; :mod:`webhook.control` looks at them. The
time counts from the start of the copying, so waiting for a slot or for room takes none of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from webhook.model.fields import InvalidObject
from webhook.model.transfer import PAUSED, POST_COPY, Transfer, transfer_of
from webhook.model.wording import escaped, refusal, warning
from webhook.policy.configuration import DeadlineMode
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.review.admission import review_of_object
from webhook.review.annotations import ORIGIN
from webhook.review.completion import (
    RESTS_ON,
    annotated_deadline,
    annotations_of,
    deadline_of,
    timestamp,
)
from webhook.review.decision import Decision, Outcome, RuleResult
from webhook.review.requester import Override, claimed_origin, override_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.model.deadline import Deadline
    from webhook.model.fields import Object
    from webhook.model.migration import Migration
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review

ADVICE = (
    "Set allowAutoConverge in the KubeVirt CR or a MigrationPolicy, migrate while the VM writes "
    "less, or allow more time (deadline.secondsPerGiB)."
)

_LEFT_ALONE = {
    POST_COPY: "its guest runs on the target already (post-copy), and would be lost",
    PAUSED: "KubeVirt has paused its guest to finish it, and ends that itself",
}

_ONLY_WARNED = {
    MigrationOrigin.EVACUATION: "the Harvester upgrade waits for KubeVirt to end it",
    MigrationOrigin.WORKLOAD_UPDATE: "KubeVirt would begin it again at once, and ends it itself",
}
_ORIGINS = frozenset(MigrationOrigin)


@dataclass(frozen=True, slots=True)
class RunningMigration:
    """A migration that copies, and until when it may.

    Attributes:
        mode: What the rule does with it.
        origin: Who started it: as the guard wrote at its creation, else as it says itself.
        allowed: The time it was given.
        ends: When that is over.
        unwritten: Annotations that do not say so yet; empty where the rule writes none.
        spared: Why it is not aborted whatever the mode; "" where it would be.
    """

    migration: Migration
    transfer: Transfer
    mode: Mode
    origin: MigrationOrigin
    allowed: Deadline
    ends: datetime
    unwritten: Mapping[str, str]
    override: Override
    spared: str

    def overdue(self, now: datetime) -> bool:
        """Tell whether its time is over, and nobody has ended it yet."""
        return now >= self.ends and not self.transfer.ending

    @property
    def outcome(self) -> Outcome:
        """What comes of it when its time is over."""
        if self.mode is Mode.AUDIT:
            return Outcome.AUDITED
        if self.mode is Mode.WARN or self.spared:
            return Outcome.WARNED
        return Outcome.OVERRIDDEN if self.override.author else Outcome.ABORTED


def running_migration(
    migration: Migration,
    vmi: VirtualMachineInstance | None,
    snapshot: Snapshot,
    configuration: Configuration,
    seen: datetime | None = None,
) -> RunningMigration | None:
    """Say until when a migration may run; None where it does not run, or has no limit.

    A migration that nobody annotated, because it was made while the guard was away, gets the time
    that it would have been given.

    Args:
        migration: What is looked at.
        vmi: The VMI that moves; None where it is not known.
        snapshot: What else is known.
        configuration: The settings of the moment.
        seen: When it was first seen to copy; None where that is now.

    Raises:
        InvalidObject: The VMI has a field of a type that a VMI cannot have.
    """
    transfer = None if vmi is None else transfer_of(migration, vmi, seen)
    if vmi is None or transfer is None:
        return None
    origin = _origin(migration)
    mode = configuration.mode_for(
        Rule.COMPLETION_DEADLINE,
        namespace=migration.namespace,
        origin=origin,
        upgrading=snapshot.upgrading,
    )
    if mode is Mode.OFF:
        return None
    allowed = annotated_deadline(migration.annotations)
    if allowed is None and not snapshot.unsure_of(*RESTS_ON):
        allowed = deadline_of(vmi, snapshot, configuration)
    if allowed is None or not allowed.limits:
        return None
    try:
        ends = transfer.started + timedelta(seconds=allowed.seconds)
    except OverflowError:
        at = "status.migrationState.startTimestamp"
        raise InvalidObject(at, "a time before the year 9999 is wanted here") from None
    wanted = annotations_of(allowed, transfer.started)
    written = {key: migration.annotations.get(key) for key in wanted}
    return RunningMigration(
        migration=migration,
        transfer=transfer,
        mode=mode,
        origin=origin,
        allowed=allowed,
        ends=ends,
        unwritten=wanted if mode is Mode.ENFORCE and written != wanted else {},
        override=override_on(vmi),
        spared=_spared(migration, transfer, origin, snapshot, configuration),
    )


def _origin(migration: Migration) -> MigrationOrigin:
    written = migration.annotations.get(ORIGIN, "")
    if written in _ORIGINS:
        return MigrationOrigin(written)
    return claimed_origin(migration.annotations)


def _spared(
    migration: Migration,
    transfer: Transfer,
    origin: MigrationOrigin,
    snapshot: Snapshot,
    configuration: Configuration,
) -> str:
    if configuration.deadline.mode is DeadlineMode.KUBEVIRT:
        return "KubeVirt ends it by its own limit (deadline.mode: kubevirt)"
    if migration.decentralized:
        return "it goes to another cluster or namespace, and only KubeVirt sees both of its ends"
    if configuration.only_warned(origin, upgrading=snapshot.upgrading):
        # KubeVirt's own abort leaves a failed migration behind, which backs off, and for which a
        # Harvester upgrade waits; a deleted one leaves nothing.
        return _ONLY_WARNED[origin]
    return _LEFT_ALONE.get(transfer.mode, "")


def decide_overrun(running: RunningMigration, decision_id: str) -> Decision:
    """Decide about a migration whose time is over.

    Returns:
        A decision with ``allowed`` false where the migration is to be aborted.
    """
    outcome = running.outcome
    aborted = outcome is Outcome.ABORTED
    message = _message(running, decision_id, aborted=aborted)
    told = () if aborted or outcome is Outcome.AUDITED else (warning(message, decision_id),)
    return Decision(
        allowed=not aborted,
        outcome=outcome,
        decision_id=decision_id,
        message=message,
        warnings=told,
        rules=(RuleResult(Rule.COMPLETION_DEADLINE, running.mode, outcome, message),),
        origin=running.origin.value,
        overridden_by=running.override.author,
        override_reason=running.override.reason,
    )


def _message(running: RunningMigration, decision_id: str, *, aborted: bool) -> str:
    transfer = running.transfer
    allowed = f"{running.allowed.seconds} s allowed"
    if running.allowed.basis:
        allowed += f" ({escaped(running.allowed.basis)})"
    since = f"{allowed} since {timestamp(transfer.started)}, its start"
    if aborted:
        head = f"{_subject(running)} aborted: it has not ended in the {since}"
        return refusal(f"{head}; the VM stays where it is", (), ADVICE, decision_id)
    head = f"{_subject(running)} has overrun its deadline {timestamp(running.ends)}: {since}"
    if running.spared:
        head += f"; not aborted, because {running.spared}"
    return refusal(head, (), "", decision_id)


def _subject(running: RunningMigration) -> str:
    migration, transfer = running.migration, running.transfer
    subject = (
        f"migration {escaped(migration.name)} of VM {escaped(migration.vmi_key)} from node "
        f"{escaped(transfer.source_node)}"
    )
    if transfer.target_node:
        subject += f" to node {escaped(transfer.target_node)}"
    return subject


def decide_not_ended(running: RunningMigration, aborted: Decision, why: str) -> Decision:
    """Take back a decision to end a migration, under the same id.

    Args:
        running: The migration.
        aborted: The decision.
        why: What came between.
    """
    message = f"{_subject(running)} was not aborted after all: {escaped(why, 250)}"
    return replace(
        aborted,
        allowed=True,
        outcome=Outcome.NOT_ABORTED,
        message=refusal(message, (), "", aborted.decision_id),
        rules=(RuleResult(Rule.COMPLETION_DEADLINE, running.mode, Outcome.NOT_ABORTED, message),),
    )


def review_of_overrun(obj: Object, decision: Decision, user: str) -> Review:
    """Return a decision about a migration that runs as the answer to a review.

    So it is logged, counted, told and kept like every other. Where the guard ends the migration,
    it asks for its deletion; otherwise nobody asks for anything.

    Args:
        obj: The migration.
        decision: What was decided.
        user: As whom the guard asks.
    """
    # No request was reviewed, so none has an id.
    review = replace(review_of_object(obj, operation="DELETE"), uid="")
    if decision.outcome is Outcome.ABORTED:
        return replace(review, username=user)
    return replace(review, operation="")

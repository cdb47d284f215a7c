"""Rule completion-deadline: until when a migration must be finished, in annotations."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from webhook.model.deadline import (
    Deadline,
    data_of,
    guard_deadline,
    kubevirt_deadline,
    kubevirt_limit,
)
from webhook.model.migration import matching_policy
from webhook.model.requests import guest_memory
from webhook.policy.configuration import DeadlineMode
from webhook.policy.rules import Mode, Rule
from webhook.review.annotations import (
    COMPLETION,
    COMPLETION_BASIS,
    COMPLETION_DEADLINE,
    COMPLETION_TIMEOUT,
)
from webhook.review.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration
    from webhook.review.case import Case

# As many digits as the longest time has.
_TIMEOUT = re.compile(r"([0-9]{1,10})s", re.ASCII)

RESTS_ON = (
    "virtualmachineinstances",
    "kubevirts",
    "persistentvolumeclaims",
    "migrationpolicies",
    "namespaces",
)

NO_MEMORY = (
    "no completion deadline: the VMI names neither guest memory nor a memory request or limit"
)


def deadline_of(
    vmi: VirtualMachineInstance, snapshot: Snapshot, configuration: Configuration
) -> Deadline | None:
    """Return the time allowed for a migration of a VMI; None where its memory is not known.

    Raises:
        InvalidObject: A quantity of the VMI is none.
    """
    settings = configuration.deadline
    rate = settings.seconds_per_gib.as_integer_ratio()
    return snapshot.memory.recall(
        snapshot.memory_key(vmi, {}, "deadline", settings.mode, rate),
        lambda: _deadline_of(vmi, snapshot, configuration),
    )


def _deadline_of(
    vmi: VirtualMachineInstance, snapshot: Snapshot, configuration: Configuration
) -> Deadline | None:
    data = data_of(vmi, snapshot.claims)
    if data.memory is None:
        return None
    policy = matching_policy(
        snapshot.policies, vmi.labels, snapshot.namespaces.get(vmi.namespace, {})
    )
    limit = kubevirt_limit(vmi, data, snapshot.kubevirt, policy)
    if configuration.deadline.mode is DeadlineMode.KUBEVIRT:
        return kubevirt_deadline(data, limit)
    return guard_deadline(data, configuration.deadline.seconds_per_gib, limit)


def timestamp(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, in whole seconds."""
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def annotations_of(deadline: Deadline, begins: datetime) -> dict[str, str]:
    """Return the annotations that tell of a time allowed which is counted from a moment."""
    values = {COMPLETION_TIMEOUT: f"{deadline.seconds}s", COMPLETION_BASIS: deadline.basis}
    if deadline.limits:
        ends = begins + timedelta(seconds=deadline.seconds)
        values[COMPLETION_DEADLINE] = timestamp(ends)
    return values


def annotated_deadline(annotations: Mapping[str, str]) -> Deadline | None:
    """Return the time allowed that the guard wrote on a migration; None where it wrote none.

    Nor where it is no limit: that may be forged, and is to be counted again.
    """
    found = _TIMEOUT.fullmatch(annotations.get(COMPLETION_TIMEOUT, ""))
    if found is None:
        return None
    deadline = Deadline(int(found[1]), annotations.get(COMPLETION_BASIS, ""))
    return deadline if deadline.limits else None


def annotate_completion(case: Case, vmi: VirtualMachineInstance) -> None:
    """Annotate the time allowed and the deadline, provisional until the migration starts."""
    rule = Rule.COMPLETION_DEADLINE
    if case.mode(rule) is Mode.OFF:
        return
    if why := case.snapshot.unsure_of(*RESTS_ON):
        case.conclude_as(Outcome.BLIND)
        case.passed(rule, f"no completion deadline: {why}")
        _write(case, {})
        return
    deadline = deadline_of(vmi, case.snapshot, case.configuration)
    if deadline is None:
        case.passed(rule, NO_MEMORY)
        _write(case, {})
        return
    what = f"{deadline.seconds} s allowed ({deadline.basis})"
    if case.mode(rule) is not Mode.ENFORCE:
        case.would_change(rule, what)
        return
    _write(case, annotations_of(deadline, case.now))
    case.changed(rule, what)


def _write(case: Case, values: Mapping[str, str]) -> None:
    """Write the annotations; one that stands there and has no value now is emptied, as forged."""
    for key in COMPLETION:
        at = ("metadata", "annotations", key)
        if key in values or case.patch.get(*at):
            case.patch.set(at, values.get(key, ""))


def tell_of_no_deadline(case: Case, vmi: VirtualMachineInstance) -> None:
    """Say once, in the validating pass, why a migration has no deadline."""
    if case.mode(Rule.COMPLETION_DEADLINE) is Mode.OFF:
        return
    if guest_memory(vmi) is None:
        case.warn(NO_MEMORY)

"""One review in, one decision out, from values alone: no HTTP, no cluster, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonpatch

from webhook.model import fields
from webhook.model.wording import LONGEST_WARNING, escaped
from webhook.review import (
    evictions,
    kubevirts,
    migrations,
    pods,
    virtual_machine_instances,
    virtual_machines,
)
from webhook.review.admission import EVICTION_KIND
from webhook.review.case import Case
from webhook.review.decision import Decision, Outcome, foremost
from webhook.review.memory import RefusalMemory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review

Rules = Callable[[Case], None]
KUBEVIRT = "kubevirt.io"
_Key = tuple[str, str, str]

MUTATING: Mapping[_Key, Rules] = {
    (KUBEVIRT, "VirtualMachineInstance", "CREATE"): virtual_machine_instances.mutate_created,
    (KUBEVIRT, "VirtualMachineInstance", "UPDATE"): virtual_machine_instances.mutate_updated,
    (KUBEVIRT, "VirtualMachineInstanceMigration", "CREATE"): migrations.mutate_created,
    ("", "Pod", "CREATE"): pods.mutate_created,
}
EVICTING: Mapping[_Key, Rules] = {(*EVICTION_KIND, "CREATE"): evictions.judge_created}
"""Comes in the mutating pass too, and is refused there; asked about with the component ``drain``
only."""
VALIDATING: Mapping[_Key, Rules] = {
    (KUBEVIRT, "VirtualMachine", "CREATE"): virtual_machines.validate_created,
    (KUBEVIRT, "VirtualMachine", "UPDATE"): virtual_machines.validate_updated,
    (KUBEVIRT, "VirtualMachineInstance", "CREATE"): virtual_machine_instances.validate_created,
    (KUBEVIRT, "VirtualMachineInstance", "UPDATE"): virtual_machine_instances.validate_updated,
    (KUBEVIRT, "VirtualMachineInstanceMigration", "CREATE"): migrations.validate_created,
    (KUBEVIRT, "VirtualMachineInstanceMigration", "UPDATE"): migrations.validate_updated,
    (KUBEVIRT, "KubeVirt", "UPDATE"): kubevirts.validate_updated,
}


def mutate(
    review: Review,
    snapshot: Snapshot,
    configuration: Configuration,
    now: datetime,
    new_id: Callable[[], str],
    memory: RefusalMemory | None = None,
    late: str = "",
) -> Decision:
    """Decide in the mutating pass: changes only, never a refusal or a warning, but of an eviction.

    Args:
        review: What is asked.
        snapshot: The facts.
        configuration: The settings.
        now: The time, aware.
        new_id: Makes a decision id.
        memory: What this replica remembers of its refusals.
        late: Why there is no time left to decide, for the user; the answer is then blind, and
            this pass warns too. "" where there is time.

    Raises:
        InvalidObject: A fact or the object has a field of a type that its kind cannot have.
    """
    changes = not review.evicts
    case = Case(review, snapshot, configuration, now, new_id, memory, mutating=changes, late=late)
    return _decide(case, MUTATING if changes else EVICTING)


def validate(
    review: Review,
    snapshot: Snapshot,
    configuration: Configuration,
    now: datetime,
    new_id: Callable[[], str],
    memory: RefusalMemory | None = None,
    late: str = "",
) -> Decision:
    """Decide in the validating pass: refuse, warn or allow the object as it then is.

    Arguments and errors as for :func:`mutate`.
    """
    case = Case(review, snapshot, configuration, now, new_id, memory, mutating=False, late=late)
    return _decide(case, VALIDATING)


def _decide(case: Case, table: Mapping[_Key, Rules]) -> Decision:
    review = case.review
    rules = table.get((review.group, review.kind, review.operation))
    asked = review.created or review.updated or review.evicts
    if rules is None or not asked or review.obj is None:
        return Decision(True, Outcome.NOT_REVIEWED, case.decision_id)
    if review.updated and not _changes_what_counts(review):
        return Decision(True, Outcome.NOT_REVIEWED, case.decision_id)
    # A new migration is judged by who asks for it, also where nothing else is known.
    if case.late and rules is not migrations.validate_created:
        (case.leave_unchanged if case.mutating else case.conclude_blind)(case.late)
    else:
        rules(case)
    return case.decide()


def not_judged(
    review: Review,
    snapshot: Snapshot,
    configuration: Configuration,
    now: datetime,
    new_id: Callable[[], str],
    memory: RefusalMemory,
    why: str,
    *,
    mutating: bool,
) -> Decision:
    """Decide where an object or a fact cannot be read: blind (docs/rules.md, "Blind").

    The API server holds a custom resource against its schema only after the mutating pass, and
    then says itself what is wrong with it.

    Args:
        review: What is asked.
        snapshot: The facts.
        configuration: The settings.
        now: The time, aware.
        new_id: Makes a decision id.
        memory: What this replica remembers of its refusals.
        why: What cannot be read.
        mutating: Whether this is the pass that may change the object.
    """
    case = Case(review, snapshot, configuration, now, new_id, memory, mutating=mutating)
    text = escaped(why, LONGEST_WARNING)
    if (review.group, review.kind) == (KUBEVIRT, "VirtualMachineInstanceMigration"):
        migrations.not_judged(case, text)
    else:
        case.conclude_blind(text)
    return case.decide()


def _changes_what_counts(review: Review) -> bool:
    """Tell whether an update changes more than status, labels or finalizers."""
    new, old = review.obj or fields.EMPTY, review.old or fields.EMPTY
    if new.get("spec") != old.get("spec"):
        return True
    return fields.mapping(new, "metadata").get("annotations") != fields.mapping(
        old, "metadata"
    ).get("annotations")


def both_passes(
    review: Review,
    snapshot: Snapshot,
    configuration: Configuration,
    now: datetime,
    new_id: Callable[[], str],
    memory: RefusalMemory | None = None,
) -> tuple[Decision, Mapping[str, Any] | None]:
    """Decide as the API server asks: the mutating pass, then the validating pass over its result.

    Returns:
        The decision of both, and the object as it would be stored (None where there is none). The
        patch of a refused object is kept, so that a reader sees what it was judged with.

    Raises:
        InvalidObject: As for :func:`mutate`.
    """
    shared = memory if memory is not None else RefusalMemory()
    first = mutate(review, snapshot, configuration, now, new_id, shared)
    obj = review.obj
    if review.evicts:
        # KubeVirt alone is asked in the validating pass.
        return first, obj
    if first.patch and obj is not None:
        obj = jsonpatch.apply_patch(obj, [dict(op) for op in first.patch])
    second = validate(replace(review, obj=obj), snapshot, configuration, now, new_id, shared)
    outcome = foremost((first.outcome, second.outcome))
    return (
        replace(
            second,
            outcome=outcome,
            patch=first.patch,
            rules=(*first.rules, *second.rules),
            message=second.message or first.message,
            warnings=tuple(dict.fromkeys((*first.warnings, *second.warnings))),
            blind=second.blind or first.blind,
            origin=second.origin or first.origin,
            via=second.via or first.via,
            decision_id=(first if first.patch or first.warnings else second).decision_id,
        ),
        obj,
    )

"""VirtualMachineInstanceMigrations: where most of the guard's rules speak.

CREATE: target-selectors and completion-deadline change the migration, incompatible-target,
chosen-node, no-room-now and passthrough-cpu judge it. UPDATE: guard-annotations.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from webhook.model import fields, kubevirt
from webhook.model.blockers import blockers
from webhook.model.migration import Migration
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.model.wording import escaped, listed
from webhook.policy.configuration import WhenBlind
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule
from webhook.review import requester
from webhook.review.admission import in_namespace
from webhook.review.annotations import DECISION, ORIGIN, OVERRIDE_BY, PROTECTED
from webhook.review.completion import annotate_completion, tell_of_no_deadline
from webhook.review.decision import Outcome
from webhook.review.ids import is_decision_id
from webhook.review.judgement import (
    Judged,
    judge,
    message,
    refuses,
    rules_asked,
    share_id_of_earlier_refusal,
)

if TYPE_CHECKING:
    from webhook.review.case import Case

DISKS = "DisksNotLiveMigratable"


def mutate_created(case: Case) -> None:
    """Write selectors, deadline and decision id on a new migration."""
    migration, vmi = _facts(case)
    if not case.snapshot.stale and _left_to_kubevirt(case, migration, vmi):
        return
    judged = _judged_if_possible(case, vmi, migration)
    if judged is not None:
        share_id_of_earlier_refusal(case, judged)
        _add_selectors(case, judged)
        case.refusal_follows = refuses(case, judged)
    elif _blind(case, migration, vmi) and _denies_when_blind(case):
        _share_id_of_blind_refusal(case, migration)
        case.refusal_follows = True
    case.patch.set(("metadata", "annotations", DECISION), case.decision_id)
    if case.origin is not None:
        case.patch.set(("metadata", "annotations", ORIGIN), case.origin.value)
    if fields.labels(case.review.obj, "metadata", "annotations").get(OVERRIDE_BY):
        case.patch.set(("metadata", "annotations", OVERRIDE_BY), "")
    if vmi is not None:
        annotate_completion(case, vmi)


def validate_created(case: Case) -> None:
    """Say whether a new migration may start."""
    migration, vmi = _facts(case)
    _take_id(case, migration)
    if not case.snapshot.stale and _left_to_kubevirt(case, migration, vmi):
        return
    blind = _blind(case, migration, vmi)
    if blind or vmi is None:
        if _denies_when_blind(case):
            _share_id_of_blind_refusal(case, migration)
        _conclude_blind(case, blind)
        return
    if case.override.ignored:
        case.warn(case.override.ignored)
    tell_of_no_deadline(case, vmi)
    if migration.decentralized:
        case.passed(Rule.INCOMPATIBLE_TARGET, "decentralized migration: nodes are not judged")
        case.conclude_as(Outcome.ALLOWED)
        return
    if not vmi.running:
        case.warn(
            f"VM {escaped(vmi.key)} is not running on a known node: "
            "nothing was derived from its source"
        )
        case.conclude_as(Outcome.ALLOWED)
        return
    judged = judge(case, vmi, migration)
    case.assessment = judged.assessment
    _tell(case, judged)


def _facts(case: Case) -> tuple[Migration, VirtualMachineInstance | None]:
    migration = Migration.from_object(in_namespace(case.review))
    vmi = case.snapshot.vmis.get(migration.vmi_key)
    case.origin = requester.migration_origin(
        case.review, migration.annotations, case.snapshot.kubevirt
    )
    case.via = requester.via(case.review, case.snapshot.kubevirt)
    case.override = requester.override_of(
        case.review, migration.annotations, vmi, case.configuration
    )
    return migration, vmi


def _blind(case: Case, migration: Migration, vmi: VirtualMachineInstance | None) -> str:
    """Say why the migration cannot be judged, "" where it can."""
    if case.late:
        return case.late
    if vmi is not None:
        return case.blind_to(vmi)
    unsure = case.snapshot.unsure_of_vmi(migration.vmi_key)
    return unsure or case.blind or "the VMI is not among the facts"


def _left_to_kubevirt(case: Case, migration: Migration, vmi: VirtualMachineInstance | None) -> bool:
    """Tell whether virt-api refuses the migration itself; the user then reads one reason.

    Source: KubeVirt ``admitters/migration-create-admitter.go:97-171``.
    """
    if vmi is not None:
        disks = vmi.condition("LiveMigratable")
        waived = bool(migration.decentralized and disks and disks.reason == DISKS)
        codes = {b.code for b in blockers(vmi)}
        refused = "final" in codes or ("not-live-migratable" in codes and not waived)
    else:
        # One that is there and cannot be read here, virt-api may well be able to read.
        refused = not case.snapshot.unsure_of_vmi(migration.vmi_key)
    if refused:
        case.conclude_as(Outcome.LEFT_TO_KUBEVIRT)
    return refused


def _judged_if_possible(
    case: Case, vmi: VirtualMachineInstance | None, migration: Migration
) -> Judged | None:
    if vmi is None or not vmi.running or migration.decentralized or case.blind_to(vmi):
        return None
    return judge(case, vmi, migration)


def _take_id(case: Case, migration: Migration) -> None:
    """Take over the id that the mutating pass wrote, where it can be this migration's.

    Every other check of a migration is against its VMI, so an id is tied to the VMI too: a retry
    has another name, and shares its id.
    """
    written = migration.annotations.get(DECISION, "")
    owner = (migration.namespace, migration.vmi_name)
    dry_run = case.review.dry_run
    if is_decision_id(written) and case.memory.claim(written, owner, dry_run=dry_run):
        case.decision_id = written


def _add_selectors(case: Case, judged: Judged) -> None:
    additions = judged.demanded.additions
    if not additions:
        case.passed(Rule.TARGET_SELECTORS)
        return
    if not case.snapshot.kubevirt.does(kubevirt.ADDED_NODE_SELECTOR):
        return
    what = f"KubeVirt would leave out {listed(sorted(additions))}"
    if case.mode(Rule.TARGET_SELECTORS) is not Mode.ENFORCE:
        case.would_change(Rule.TARGET_SELECTORS, what)
        return
    if not judged.assessment.possible and not refuses(case, judged):
        case.would_change(
            Rule.TARGET_SELECTORS, f"{what}; not added, because no node would be left"
        )
        return
    for key, value in sorted(additions.items()):
        case.patch.set(("spec", "addedNodeSelector", key), value)
    case.changed(Rule.TARGET_SELECTORS, f"added {listed(sorted(additions))}")


def _tell(case: Case, judged: Judged) -> None:
    verdict = judged.verdict
    for rule in rules_asked(judged):
        if rule is not verdict.rule:
            case.passed(rule)
    if verdict.rule is not None:
        share_id_of_earlier_refusal(case, judged)
        case.find(verdict.rule, message(case, judged), at_most=verdict.at_most)
        if not refuses(case, judged) and not judged.assessment.possible:
            left_out = sorted(judged.demanded.additions)
            if left_out:
                case.warn(f"not added, because no node would be left: {listed(left_out)}")
    scheduler = judged.demanded.foreign_scheduler
    if scheduler and verdict.rule is not None:
        case.warn(
            f'another scheduler decides, "{escaped(scheduler)}": '
            "what it makes of taints, room and volumes is not known"
        )
    for lost in judged.demanded.overridden:
        case.warn(
            f"addedNodeSelector {escaped(lost.key)}={escaped(lost.asked)} has no effect: "
            f"KubeVirt sets {escaped(lost.wins)}"
        )
    for note in judged.demanded.notes:
        case.warn(note)


def not_judged(case: Case, why: str) -> None:
    """Conclude where the migration or what is known of its VMI cannot be read."""
    with suppress(fields.InvalidObject):
        _facts(case)
    _conclude_blind(case, why)


def _denies_when_blind(case: Case) -> bool:
    denies = case.configuration.when_blind is WhenBlind.DENY
    by_user = case.origin is MigrationOrigin.USER
    return denies and by_user and not (case.exempt or case.override.author)


def _share_id_of_blind_refusal(case: Case, migration: Migration) -> None:
    """Answer who tries again with one id, though for how long the guard is blind differs."""
    case.share_id_of_earlier(("blind", migration.namespace, migration.vmi_name))


def _conclude_blind(case: Case, why: str) -> None:
    if _denies_when_blind(case) and not case.mutating:
        case.conclude_as(Outcome.BLIND)
        again = "Try again" if case.late else "Try again when the guard is ready"
        case.refuse_blind(
            f"migration refused: {why}, so nobody can say whether it would succeed "
            f"(whenBlind: deny). {again}. Decision {case.decision_id}."
        )
        return
    case.conclude_blind(why)


def validate_updated(case: Case) -> None:
    """Protect what the guard wrote on a migration (rule guard-annotations)."""
    old, new = case.review.old or fields.EMPTY, case.review.obj or fields.EMPTY
    migration = Migration.from_object(in_namespace(case.review))
    case.origin = requester.migration_origin(
        case.review, migration.annotations, case.snapshot.kubevirt
    )
    if fields.mapping(old, "spec") != fields.mapping(new, "spec"):
        case.conclude_as(Outcome.LEFT_TO_KUBEVIRT)
        return
    before = fields.labels(old, "metadata", "annotations")
    touched = [key for key in PROTECTED if before.get(key) != migration.annotations.get(key)]
    if not touched:
        case.passed(Rule.GUARD_ANNOTATIONS)
        return
    entitled = case.configuration.may_override(case.review.username, case.review.groups)
    if entitled or case.review.username == requester.GUARD:
        case.passed(Rule.GUARD_ANNOTATIONS)
        return
    case.find(
        Rule.GUARD_ANNOTATIONS,
        f"change of migration {escaped(migration.namespace)}/{escaped(migration.name)} refused: "
        f"{listed(sorted(touched))} belong to migration-guard. Leave them as they are. "
        f"Decision {case.decision_id}.",
    )

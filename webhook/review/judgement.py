"""The verdict on a migration: can it go anywhere (incompatible-target, chosen-node and kin)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from webhook.model import labels
from webhook.model.advice import advice_for, alternatives
from webhook.model.obstacle import Code, Kind
from webhook.model.part import Part
from webhook.model.placement import assess, assess_one
from webhook.model.wording import clauses, escaped, refusal
from webhook.policy.rules import Mode, Rule

if TYPE_CHECKING:
    from collections.abc import Hashable

    from webhook.model.migration import Migration
    from webhook.model.placement import Assessment, Conditions
    from webhook.model.requirements import Requirements
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.review.case import Case

LASTING = frozenset({Kind.LASTING})
PASSING = frozenset({Kind.PASSING})
RISKS = frozenset({Kind.RISK})
CANNOT = "cannot succeed"
WAITS = "must wait"
RISKY = "is a risk"
NO_OTHER_NODE = "there is no other node"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule has to say of where a migration can go; ``rule`` None: it can go somewhere.

    Attributes:
        subject: Which migration.
        finding: What is wrong with it, as a verb; a refusal says "refused" in its place.
        reason: Why, in words; "" where the body says it.
        body: One clause for each group of nodes.
        at_most: What the finding can lead to, whatever the mode.
        chosen: A node was named, and only that one was judged.
    """

    rule: Rule | None
    subject: str = ""
    finding: str = ""
    reason: str = ""
    body: tuple[str, ...] = ()
    at_most: Mode = Mode.ENFORCE
    chosen: bool = False

    @property
    def evidence(self) -> tuple[str, ...]:
        """Return what tells this verdict from another."""
        return (self.subject, self.finding, self.reason, *self.body)


@dataclass(frozen=True, slots=True)
class Judged:
    """A migration held against all nodes.

    Attributes:
        key: Under what it is remembered, None where it is not.
    """

    vmi: VirtualMachineInstance
    demanded: Requirements
    assessment: Assessment
    conditions: Conditions
    verdict: Verdict
    key: Hashable | None = None


def judge(case: Case, vmi: VirtualMachineInstance, migration: Migration) -> Judged:
    """Hold a migration against all nodes.

    Raises:
        InvalidObject: The VMI has a field of a type that a VMI cannot have.
    """
    strict = case.mode(Rule.PASSTHROUGH_CPU) is Mode.ENFORCE
    snapshot, settings = case.snapshot, case.configuration
    key = snapshot.memory_key(
        vmi,
        migration.added_node_selector,
        strict,
        case.by_name,
        settings.cluster.autoscaled,
        settings.passing_taints,
    )
    known = snapshot.memory.get(key) if key is not None else None
    if known is not None:
        return cast("Judged", known)
    demanded = snapshot.requirements(vmi, migration, strict_passthrough=strict)
    conditions = case.conditions(demanded)
    assessment = assess(demanded, snapshot.nodes, conditions)
    if snapshot.nodes.settles or demanded.source_settling_until is not None:
        # The answer depends on the time.
        key = None
    verdict = _verdict(case, vmi, demanded, assessment, conditions)
    judged = Judged(vmi, demanded, assessment, conditions, verdict, key)
    if key is not None:
        snapshot.memory.keep(key, judged)
    return judged


def subject(vmi: VirtualMachineInstance, what: str = "migration") -> str:
    """Return what a verdict speaks of: the migration of a VM from its node, or its eviction."""
    return (
        f"{what} of VM {escaped(vmi.namespace)}/{escaped(vmi.name)} from node "
        f"{escaped(vmi.node_name)}"
    )


def _verdict(
    case: Case,
    vmi: VirtualMachineInstance,
    demanded: Requirements,
    assessment: Assessment,
    conditions: Conditions,
) -> Verdict:
    if demanded.chosen_host:
        return _of_chosen_node(case, vmi, demanded, conditions)
    others = assessment.others
    moved = subject(vmi)
    autoscaled = Mode.WARN if case.configuration.cluster.autoscaled else Mode.ENFORCE
    if not others:
        rule = Rule.INCOMPATIBLE_TARGET
        return Verdict(rule, moved, CANNOT, NO_OTHER_NODE, at_most=autoscaled)
    if all(part.lasting for part in others):
        body = clauses(others, LASTING, by_name=case.by_name)
        reason = "no other node can take it"
        return Verdict(Rule.INCOMPATIBLE_TARGET, moved, CANNOT, reason, body, autoscaled)
    if not assessment.fits_somewhere:
        open_parts = [part for part in others if not part.lasting]
        body = clauses(open_parts, PASSING, by_name=case.by_name)
        reason = "no other node can take it now"
        return Verdict(Rule.NO_ROOM_NOW, moved, WAITS, reason, body, _at_most(case, demanded))
    fitting = [part for part in others if part.fits]
    if all(_differs(part) for part in fitting):
        body = clauses(fitting, RISKS, by_name=case.by_name)
        reason = "its CPU mode is host-passthrough and no other CPU is alike"
        return Verdict(Rule.PASSTHROUGH_CPU, moved, RISKY, reason, body)
    return Verdict(None)


def _at_most(case: Case, demanded: Requirements) -> Mode:
    """Return what a finding on pods around can lead to; one not read may be the one it wants."""
    wants_company = any(not term.anti for term in demanded.pod_terms)
    unsure = wants_company and case.snapshot.unreadable.get("pods")
    return Mode.WARN if unsure else Mode.ENFORCE


def _differs(part: Part) -> bool:
    return any(o.code is Code.PASSTHROUGH_CPU for o in part.obstacles)


def _of_chosen_node(
    case: Case, vmi: VirtualMachineInstance, demanded: Requirements, conditions: Conditions
) -> Verdict:
    host = demanded.chosen_host
    named = [
        node
        for node in case.snapshot.nodes.by_name.values()
        if node.labels.get(labels.HOSTNAME) == host
    ]
    rule = Rule.CHOSEN_NODE
    moved = f'{subject(vmi)} to the chosen node "{escaped(host)}"'
    if not named:
        reason = f"no node has the label {labels.HOSTNAME}={escaped(host)}"
        return Verdict(rule, moved, CANNOT, reason, chosen=True)
    if all(node.name == vmi.node_name for node in named):
        return Verdict(rule, moved, CANNOT, "the VM runs there already", chosen=True)
    parts = [
        Part((node,), assess_one(demanded, node, case.snapshot.nodes, conditions))
        for node in sorted(named, key=lambda node: node.name)
        if node.name != vmi.node_name
    ]
    if all(part.lasting for part in parts):
        body = clauses(parts, LASTING, by_name=case.by_name)
        return Verdict(rule, moved, CANNOT, body=body, chosen=True)
    if not any(part.fits for part in parts):
        body = clauses((p for p in parts if not p.lasting), PASSING, by_name=case.by_name)
        return Verdict(rule, moved, WAITS, body=body, at_most=Mode.WARN, chosen=True)
    fitting = [part for part in parts if part.fits]
    if all(_differs(part) for part in fitting):
        body = clauses(fitting, RISKS, by_name=case.by_name)
        return Verdict(Rule.PASSTHROUGH_CPU, moved, RISKY, body=body, chosen=True)
    return Verdict(None, chosen=True)


def refuses(case: Case, judged: Judged) -> bool:
    """Tell whether the verdict refuses the migration in the validating pass."""
    verdict = judged.verdict
    if verdict.rule is None or verdict.at_most is not Mode.ENFORCE:
        return False
    return case.would_refuse(verdict.rule)


def share_id_of_earlier_refusal(case: Case, judged: Judged) -> None:
    """Answer who tries again with the id of the first refusal."""
    if not refuses(case, judged):
        return
    verdict = judged.verdict
    case.share_id_of_earlier((judged.vmi.uid, verdict.rule, verdict.evidence))


def message(case: Case, judged: Judged) -> str:
    """Return the verdict in full, with what would help and the decision id."""
    verdict = judged.verdict
    head = f"{verdict.subject} {'refused' if refuses(case, judged) else verdict.finding}"
    if verdict.reason:
        head += f": {verdict.reason}"
    advice = ""
    if verdict.rule in (Rule.INCOMPATIBLE_TARGET, Rule.CHOSEN_NODE):
        advice = _known_advice(case, judged)
    return refusal(head, verdict.body, advice, case.decision_id)


def _known_advice(case: Case, judged: Judged) -> str:
    key = None if judged.key is None else ("advice", judged.key)
    return case.snapshot.memory.recall(key, lambda: _advice(case, judged))


def _advice(case: Case, judged: Judged) -> str:
    if judged.verdict.chosen:
        others = alternatives(
            judged.demanded, case.snapshot, judged.conditions, by_name=case.by_name
        )
        if others:
            return others
    return advice_for(
        judged.vmi,
        case.snapshot,
        judged.demanded,
        judged.assessment,
        judged.conditions,
        by_name=case.by_name,
    )


def rules_asked(judged: Judged) -> tuple[Rule, ...]:
    """Return the rules that this migration was held against."""
    found = [Rule.CHOSEN_NODE] if judged.verdict.chosen else [Rule.INCOMPATIBLE_TARGET]
    if not judged.verdict.chosen:
        found.append(Rule.NO_ROOM_NOW)
    if judged.demanded.passthrough:
        found.append(Rule.PASSTHROUGH_CPU)
    return tuple(found)

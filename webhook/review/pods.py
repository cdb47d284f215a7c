"""virt-launcher pods: patched or left alone, never refused (docs/rules.md, "no rule may ever").

Only a pod that virt-controller makes, for a VMI (and, at a target pod, a migration) that is known
and whose uid it names rightly, is touched.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from webhook.model import fields, labels, limits
from webhook.model.cpu import effective_model
from webhook.model.first_boot import preference
from webhook.model.memory import LONGEST
from webhook.model.migration import LauncherPod, Migration
from webhook.model.node_affinity import read_terms
from webhook.model.obstacle import Code, Origin
from webhook.model.placement import assess
from webhook.model.requirements import Requirements, selector
from webhook.model.virtual_machine import HOST_MODEL
from webhook.model.wording import listed
from webhook.policy.configuration import FirstBoot
from webhook.policy.rules import Mode, Rule
from webhook.review import requester
from webhook.review.admission import in_namespace
from webhook.review.annotations import COMPLETION, COMPLETION_DEADLINE, DECISION
from webhook.review.completion import annotate_completion
from webhook.review.decision import Outcome
from webhook.review.ids import is_decision_id

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from webhook.model.node import Node
    from webhook.model.node_affinity import Term
    from webhook.model.placement import Assessment
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.review.case import Case

_NOT_KUBEVIRTS = "it was not made by KubeVirt's controller"
_REQUIRED = ("spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
_PREFERRED = (
    "spec",
    "affinity",
    "nodeAffinity",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_CPU_CODES = frozenset({Code.CPU_MODEL, Code.CPU_FEATURE, Code.CPU_VENDOR, Code.PASSTHROUGH_CPU})


def mutate_created(case: Case) -> None:
    """Add what a VM's pod should have: a target's CPU selectors and deadline, a first one's wish.

    Hotplug pods carry the migration's uid too, and provisioning pods the launcher's label.
    """
    obj = in_namespace(case.review)
    marks = fields.labels(obj, "metadata", "labels")
    notes = fields.labels(obj, "metadata", "annotations")
    runs_a_vm = (
        marks.get(labels.POD_KIND) == labels.LAUNCHER
        and notes.get(labels.EPHEMERAL_PROVISIONING) != "true"
    )
    if runs_a_vm and marks.get(labels.MIGRATION_UID):
        _mutate_target(case, obj)
    elif runs_a_vm and case.configuration.first_boot is FirstBoot.PREFER_MIGRATABLE:
        _mutate_first(case, obj)
    else:
        case.conclude_as(Outcome.NOT_REVIEWED)


def _mutate_first(case: Case, obj: fields.Object) -> None:
    """Lead a host-model guest's start to nodes that it can leave again.

    virt-controller makes the pod some milliseconds after the VMI, which may not be among the facts
    yet; what the pod demands stands in the pod itself.
    """
    rule = Rule.FIRST_BOOT
    if case.mode(rule) is Mode.OFF:
        return
    if case.blind:
        case.leave_unchanged(case.blind)
        return
    if not requester.is_controller(case.review, case.snapshot.kubevirt):
        case.would_change(rule, f"pod left alone: {_NOT_KUBEVIRTS}")
        return
    pod = LauncherPod.from_object(obj)
    if not _is_host_model(case, pod):
        case.passed(rule)
        return
    posted = _as_posted(Requirements(requests=pod.requests, namespace=pod.namespace), pod, obj, {})
    terms = preference(_choices(assess(posted, case.snapshot.nodes, case.conditions(posted)), case))
    if not terms:
        case.passed(rule, "no node is better than another")
        return
    cpus = sorted({term["preference"]["matchExpressions"][0]["key"] for term in terms})
    if case.mode(rule) is not Mode.ENFORCE:
        case.would_change(rule, f"would prefer nodes with {listed(cpus)}")
        return
    for term in terms:
        case.patch.append(_PREFERRED, term)
    case.changed(rule, f"prefers nodes with {listed(cpus)}")


def _is_host_model(case: Case, pod: LauncherPod) -> bool:
    """Tell whether a first pod's guest gets the CPU of its node.

    KubeVirt keeps such pods, and no others, off nodes whose host model is obsolete
    (``pkg/virt-controller/services/template.go``).
    """
    vmi = case.snapshot.vmi_of(pod)
    if vmi is not None and vmi.uid == pod.vmi_uid:
        return effective_model(vmi, case.snapshot.kubevirt).model == HOST_MODEL
    written = fields.mapping(pod.affinity, *_REQUIRED[2:]).get("nodeSelectorTerms")
    terms = read_terms(written, *_REQUIRED, "nodeSelectorTerms")
    return any(labels.OBSOLETE_HOST_MODEL in term.keys for term in terms)


def _choices(found: Assessment, case: Case) -> list[tuple[Node, int]]:
    """Return the nodes that no lasting obstacle excludes: one of each CPU, and how many."""
    nodes = case.snapshot.nodes
    first: dict[int, Node] = {}
    count: Counter[int] = Counter()
    for part in found.parts:
        if part.lasting:
            continue
        for node in part.in_any_order():
            group = nodes.group_of(node.name)
            if group is not None:
                kind = nodes.groups[group].kind
                count[kind] += 1
                if kind not in first or node.name < first[kind].name:
                    first[kind] = node
    return [(node, count[kind]) for kind, node in first.items()]


def _mutate_target(case: Case, obj: fields.Object) -> None:
    pod = LauncherPod.from_object(obj, counted=False)
    doubt = _doubt(case, pod, obj)
    if doubt and case.snapshot.stale:
        case.leave_unchanged(case.blind)
        return
    if doubt:
        case.would_change(Rule.TARGET_SELECTORS, f"pod left alone: {doubt}")
        return
    vmi = case.snapshot.vmis[f"{pod.namespace}/{pod.vmi_name}"]
    migration = case.snapshot.migrations[pod.migration_uid]
    case.origin = requester.migration_origin(
        case.review, migration.annotations, case.snapshot.kubevirt
    )
    if not migration.decentralized:
        _add_selectors(case, pod, vmi, migration, obj)
    _carry_deadline(case, vmi, migration)
    if case.patch.operations:
        written = migration.annotations.get(DECISION, "")
        case.decision_id = written if is_decision_id(written) else case.decision_id
        case.patch.set(("metadata", "annotations", DECISION), case.decision_id)


def _doubt(case: Case, pod: LauncherPod, obj: fields.Object) -> str:
    """Say why a target pod's labels are not believed, "" where they are."""
    vmi = case.snapshot.vmi_of(pod)
    doubt = _doubt_of_vmi(case, pod, vmi, obj)
    if vmi is None or doubt:
        return doubt
    migration = case.snapshot.migrations.get(pod.migration_uid)
    if migration is None:
        return f"no migration has the uid of its label {labels.MIGRATION_UID}"
    if (migration.namespace, migration.vmi_name) != (vmi.namespace, vmi.name):
        return f"its label {labels.MIGRATION_UID} belongs to a migration of something else"
    return ""


def _doubt_of_vmi(
    case: Case, pod: LauncherPod, vmi: VirtualMachineInstance | None, obj: fields.Object
) -> str:
    """Say why a pod is not believed to be its VMI's, "" where it is."""
    if not requester.is_controller(case.review, case.snapshot.kubevirt):
        return _NOT_KUBEVIRTS
    if vmi is None:
        return "its VMI is not among the facts"
    owners = {fields.text(o, "uid") for o in fields.items(obj, "metadata", "ownerReferences")}
    if vmi.uid != pod.vmi_uid or (owners and vmi.uid not in owners):
        return f"its label {labels.CREATED_BY} is not the uid of its VMI"
    return ""


@dataclass(frozen=True, slots=True)
class _Additions:
    """What a target pod lacks.

    Attributes:
        selectors: Node selector entries by key, in order.
        named: Their keys, in words.
        leave_a_node: Whether the pod still has a node to go to with them; only found out in mode
            enforce.
    """

    selectors: Mapping[str, str]
    named: str
    leave_a_node: bool


def _add_selectors(
    case: Case,
    pod: LauncherPod,
    vmi: VirtualMachineInstance,
    migration: Migration,
    obj: fields.Object,
) -> None:
    rule = Rule.TARGET_SELECTORS
    if case.mode(rule) is Mode.OFF:
        return
    if why := case.blind_to(vmi):
        case.leave_unchanged(why)
        return
    found = case.snapshot.memory.recall(
        _memory_key(case, pod, vmi, migration), lambda: _additions(case, pod, vmi, migration, obj)
    )
    if not found.selectors:
        case.passed(rule)
        return
    what = f"{found.named} missing from the pod"
    if case.mode(rule) is not Mode.ENFORCE:
        case.would_change(rule, what)
        return
    if not found.leave_a_node:
        case.would_change(rule, f"{what}; not added: no node would be left")
        return
    for key, value in found.selectors.items():
        case.patch.set(("spec", "nodeSelector", key), value)
    case.changed(rule, f"added {found.named}")


def _memory_key(
    case: Case, pod: LauncherPod, vmi: VirtualMachineInstance, migration: Migration
) -> Hashable | None:
    """Return under what to remember what a pod lacks, None where it is not to be remembered."""
    if case.snapshot.nodes.settles:
        # The answer depends on the time.
        return None
    try:
        written = orjson.dumps((pod.node_selector, pod.affinity, pod.tolerations))
    except orjson.JSONEncodeError:
        # A person's YAML can hold what JSON cannot.
        return None
    if len(written) > LONGEST:
        return None
    return case.snapshot.memory_key(
        vmi,
        migration.added_node_selector,
        "additions",
        case.mode(Rule.TARGET_SELECTORS),
        case.mode(Rule.PASSTHROUGH_CPU),
        case.configuration.passing_taints,
        written,
    )


def _additions(
    case: Case,
    pod: LauncherPod,
    vmi: VirtualMachineInstance,
    migration: Migration,
    obj: fields.Object,
) -> _Additions:
    strict = case.mode(Rule.PASSTHROUGH_CPU) is Mode.ENFORCE
    demanded = case.snapshot.requirements(vmi, migration, strict_passthrough=strict)
    selectors = {
        key: selector.value
        for key, selector in sorted(demanded.selectors.items())
        if selector.code in _CPU_CODES and key not in pod.node_selector
    }
    if not selectors:
        return _Additions(selectors, "", leave_a_node=False)
    leave_a_node = False
    if case.mode(Rule.TARGET_SELECTORS) is Mode.ENFORCE:
        posted = _as_posted(demanded, pod, obj, selectors)
        leave_a_node = assess(posted, case.snapshot.nodes, case.conditions(posted)).possible
    return _Additions(selectors, listed(list(selectors)), leave_a_node)


def _as_posted(
    demanded: Requirements, pod: LauncherPod, obj: fields.Object, more: Mapping[str, str]
) -> Requirements:
    """Return the demands of the pod as it stands, whoever wrote them, and of some selectors."""
    limits.hold_entries("spec.nodeSelector", pod.node_selector)
    limits.hold_entries("spec.tolerations", pod.tolerations)
    affinity = _posted_affinity(obj)
    posted = {}
    for key, value in pod.node_selector.items():
        known = demanded.selectors.get(key) or selector(key, value, Origin.KUBEVIRT)
        posted[key] = known if known.value == value else replace(known, value=value)
    for key, value in more.items():
        posted[key] = selector(key, value, Origin.SOURCE_CPU)
    return replace(
        demanded,
        selectors=posted,
        affinity=affinity,
        absent=(),
        tolerations=tuple(dict.fromkeys((*demanded.tolerations, *pod.tolerations))),
    )


def _posted_affinity(obj: fields.Object) -> tuple[Term, ...] | None:
    written = fields.mapping(obj, *_REQUIRED).get("nodeSelectorTerms")
    if written is None:
        return None
    terms = read_terms(written, *_REQUIRED, "nodeSelectorTerms")
    limits.hold_terms(".".join((*_REQUIRED, "nodeSelectorTerms")), terms)
    return terms


def _carry_deadline(case: Case, vmi: VirtualMachineInstance, migration: Migration) -> None:
    """Put the migration's own deadline on its pod; make one where it has none."""
    rule = Rule.COMPLETION_DEADLINE
    if case.mode(rule) is not Mode.ENFORCE or not migration.annotations.get(COMPLETION_DEADLINE):
        annotate_completion(case, vmi)
        return
    for key in COMPLETION:
        if value := migration.annotations.get(key, ""):
            case.patch.set(("metadata", "annotations", key), value)
    case.changed(rule, f"must end by {migration.annotations[COMPLETION_DEADLINE]}")

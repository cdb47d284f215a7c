"""From a decision to its record: what is kept of the request, and what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonpatch

from webhook.audit import record as limits
from webhook.audit.importance import IMPORTANCE
from webhook.audit.record import MUTATING, VALIDATING, Record, microseconds
from webhook.model import fields, labels
from webhook.model.migration import LauncherPod, Migration
from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance
from webhook.policy.origins import MigrationOrigin
from webhook.review.admission import in_namespace
from webhook.review.cpu_models import model_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.model.fields import Object
    from webhook.model.obstacle import Obstacle
    from webhook.model.part import Part
    from webhook.model.placement import Assessment
    from webhook.model.snapshot import Snapshot
    from webhook.review.admission import Review
    from webhook.review.decision import Circumstances, Decision


def is_kept(review: Review, decision: Decision) -> bool:
    """Tell whether a decision is kept.

    A dry run changes nothing and is in the log and the metrics only. What the mutating pass
    changes on an object that the validating pass will refuse is never stored; the refusal is kept.
    """
    kept = decision.outcome in IMPORTANCE
    return kept and not review.dry_run and not decision.refusal_follows


def record_of(review: Review, decision: Decision, circumstances: Circumstances) -> Record:
    """Return what is kept of a decision."""
    cut = _Cut()
    about = _about(review, decision, circumstances.facts)
    telling = [r for r in decision.rules if r.outcome is decision.outcome] or decision.rules[:1]
    metadata = _metadata(review.obj or review.old or fields.EMPTY)
    # Anybody can write the annotation; the origin says whether it is believed.
    evacuates = decision.origin == MigrationOrigin.EVACUATION
    return Record(
        decision=decision.decision_id,
        time=microseconds(circumstances.now),
        phase=MUTATING if circumstances.mutating else VALIDATING,
        outcome=decision.outcome,
        allowed=decision.allowed,
        rule=telling[0].rule.value if telling else "",
        mode=telling[0].mode.value if telling else "",
        rules=tuple(
            {
                "rule": r.rule.value,
                "mode": r.mode.value,
                "outcome": r.outcome.value,
                "detail": cut.text("rules", r.detail),
            }
            for r in decision.rules
        ),
        operation=cut.text("operation", review.operation),
        group=cut.text("group", review.group),
        version=cut.text("version", review.version),
        kind=cut.text("kind", review.kind),
        subresource=cut.text("subresource", review.subresource),
        namespace=cut.text("namespace", review.namespace),
        name=cut.text("name", review.name or metadata["name"]),
        generate_name=cut.text("generateName", metadata["generateName"]),
        object_uid=cut.text("objectUid", metadata["uid"]),
        request_uid=cut.text("requestUid", review.uid),
        vm=cut.text("vm", about.vm),
        vm_uid=cut.text("vmUid", about.vm_uid),
        user=cut.text("user", review.username),
        groups=cut.texts("groups", review.groups, limits.MOST_GROUPS),
        origin=decision.origin,
        via=decision.via,
        evacuated_node=cut.text("evacuatedNode", about.evacuated_node if evacuates else ""),
        source=cut.text("source", about.source),
        chosen_node=cut.text("chosenNode", about.chosen_node),
        cpu_model=cut.text("cpuModel", about.cpu_model),
        cpu_model_source=about.cpu_model_source,
        obstacles=_obstacles(decision.assessment, cut),
        message=cut.text("message", decision.message),
        warnings=tuple(cut.text("warnings", text) for text in decision.warnings),
        patch=_patch(decision.patch, cut),
        overridden_by=cut.text("overriddenBy", decision.overridden_by),
        override_reason=cut.text("overrideReason", decision.override_reason),
        dry_run=review.dry_run,
        facts_age=circumstances.facts_age,
        latency=round(circumstances.seconds, 6),
        cut=tuple(sorted(cut.fields)),
    )


class _Cut:
    """Cuts values to the lengths that are kept, and notes where it did."""

    def __init__(self) -> None:
        self.fields: set[str] = set()

    def text(self, field: str, value: str) -> str:
        if len(value) <= limits.LONGEST_TEXT:
            return value
        self.fields.add(field)
        return value[: limits.LONGEST_TEXT]

    def texts(self, field: str, values: Sequence[str], most: int) -> tuple[str, ...]:
        if len(values) > most:
            self.fields.add(field)
        return tuple(self.text(field, value) for value in values[:most])


@dataclass(frozen=True, slots=True)
class _About:
    """What a request is about, as far as the facts tell."""

    vm: str = ""
    vm_uid: str = ""
    evacuated_node: str = ""
    source: str = ""
    chosen_node: str = ""
    cpu_model: str = ""
    cpu_model_source: str = ""


def _about(review: Review, decision: Decision, facts: Snapshot) -> _About:
    find = _FINDERS.get(review.kind)
    obj = review.old if review.obj is None else in_namespace(review)
    if find is None or obj is None:
        return _About()
    try:
        return find(obj, decision, facts)
    except fields.InvalidObject:
        # It was decided without being read this far; the record then says less.
        return _About()


def _of_migration(obj: Object, decision: Decision, facts: Snapshot) -> _About:
    migration = Migration.from_object(obj)
    key = migration.vmi_key
    vmi = facts.vmis.get(key)
    evacuated = migration.annotations.get(labels.EVACUATION, "")
    chosen = migration.added_node_selector.get(labels.HOSTNAME, "")
    if vmi is None:
        return _About(key, "", evacuated, "", chosen)
    state = fields.mapping(vmi.status, "migrationState")
    if migration.uid and fields.text(state, "migrationUid") == migration.uid:
        # It runs: to where is known.
        chosen = fields.text(state, "targetNode") or chosen
    model, who = model_source(vmi, facts)
    return _About(
        vm=key,
        vm_uid=vmi.uid,
        evacuated_node=evacuated,
        source=vmi.node_name,
        chosen_node=chosen or vmi.node_selector.get(labels.HOSTNAME, ""),
        cpu_model=model,
        cpu_model_source=who,
    )


def _of_instance(obj: Object, decision: Decision, facts: Snapshot) -> _About:
    if decision.patch:
        obj = jsonpatch.apply_patch(obj, [dict(operation) for operation in decision.patch])
    vmi = VirtualMachineInstance.from_object(obj)
    model, who = model_source(vmi, facts)
    return _About(vmi.key, vmi.uid, "", vmi.node_name, "", model, who)


def _of_machine(obj: Object, decision: Decision, facts: Snapshot) -> _About:
    vm = VirtualMachine.from_object(obj)
    model, who = model_source(vm.instance(), facts)
    return _About(vm.key, vm.uid, cpu_model=model, cpu_model_source=who)


def _of_pod(obj: Object, decision: Decision, facts: Snapshot) -> _About:
    pod = LauncherPod.from_object(obj)
    key = f"{pod.namespace}/{pod.vmi_name}"
    vmi = facts.vmis.get(key)
    if vmi is None:
        return _About(key, pod.vmi_uid)
    model, who = model_source(vmi, facts)
    return _About(key, vmi.uid, "", vmi.node_name, "", model, who)


def _of_eviction(obj: Object, decision: Decision, facts: Snapshot) -> _About:
    eviction = LauncherPod.from_object(obj)
    pod = facts.launcher_pod(eviction.namespace, eviction.name)
    vmi = None if pod is None else facts.vmi_of(pod)
    if vmi is None:
        return _About()
    model, who = model_source(vmi, facts)
    return _About(vmi.key, vmi.uid, vmi.node_name, vmi.node_name, "", model, who)


_FINDERS = {
    "VirtualMachineInstanceMigration": _of_migration,
    "VirtualMachineInstance": _of_instance,
    "VirtualMachine": _of_machine,
    "Pod": _of_pod,
    "Eviction": _of_eviction,
}


def _metadata(obj: Object) -> dict[str, str]:
    try:
        return {key: fields.text(obj, "metadata", key) for key in ("name", "generateName", "uid")}
    except fields.InvalidObject:
        return {"name": "", "generateName": "", "uid": ""}


def _obstacles(assessment: Assessment | None, cut: _Cut) -> tuple[Mapping[str, Any], ...]:
    """Return what stands in the way, by group of nodes; the source is left out."""
    if assessment is None:
        return ()
    parts = [part for part in assessment.others if part.obstacles]
    if len(parts) > limits.MOST_PARTS:
        cut.fields.add("obstacles")
        parts = sorted(parts, key=lambda part: -part.count)[: limits.MOST_PARTS]
    return tuple(_part(part, cut) for part in parts)


def _part(part: Part, cut: _Cut) -> dict[str, Any]:
    names = part.first_names(limits.MOST_NODES)
    return {
        "nodes": names,
        "count": part.count,
        "obstacles": [_obstacle(obstacle, cut) for obstacle in part.obstacles],
    }


def _obstacle(obstacle: Obstacle, cut: _Cut) -> dict[str, Any]:
    return {
        "code": obstacle.code.value,
        "kind": obstacle.kind.value,
        "origin": obstacle.origin.value,
        "missing": cut.texts("obstacles", obstacle.missing, limits.MOST_LABELS),
        "present": cut.texts("obstacles", obstacle.present, limits.MOST_LABELS),
        "detail": cut.text("obstacles", obstacle.detail),
    }


def _patch(patch: Iterable[Mapping[str, Any]], cut: _Cut) -> tuple[Mapping[str, Any], ...]:
    """Return what changes; ``test`` operations only repeat what the object holds already."""
    changes = [operation for operation in patch if operation["op"] != "test"]
    if len(changes) > limits.MOST_OPERATIONS:
        cut.fields.add("patch")
    return tuple(changes[: limits.MOST_OPERATIONS])

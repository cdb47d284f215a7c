"""VirtualMachineInstances: the CPU model at CREATE, who wrote an override at UPDATE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.cpu import EffectiveModel, effective_model
from webhook.model.labels import CREATE_MIGRATION_TARGET
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.policy.configuration import COMMON_MODEL
from webhook.policy.rules import Mode, Rule
from webhook.review import requester
from webhook.review.admission import in_namespace
from webhook.review.annotations import (
    CPU_MODEL,
    CPU_MODEL_SOURCE,
    DECISION,
    OVERRIDE,
    OVERRIDE_BY,
)
from webhook.review.cpu_models import tell_of_model
from webhook.review.default_model import common_model, default_model, unsure_of_default_model
from webhook.review.ids import is_decision_id

if TYPE_CHECKING:
    from webhook.review.case import Case

_INSTANCETYPES = ("kubevirt.io/cluster-instancetype-name", "kubevirt.io/instancetype-name")
NO_COMMON = "cpuModel.default is common, but no model spans all schedulable nodes: KubeVirt's holds"


def mutate_created(case: Case) -> None:
    """Set the cluster's default CPU model where none is set, and annotate it."""
    rule = Rule.CPU_MODEL_DEFAULT
    vmi = VirtualMachineInstance.from_object(in_namespace(case.review))
    if vmi.annotations.get(CREATE_MIGRATION_TARGET) == "true":
        case.passed(rule)
        return
    if case.mode(rule) is Mode.OFF:
        return
    if why := _unsure(case, vmi):
        case.leave_unchanged(why)
        return
    model, source = _model_of(case, vmi)
    sets = not vmi.cpu_model and source not in ("preset", "architecture")
    what = f'CPU model "{model}" ({source})' if model else f"CPU model from a {source}"
    if case.mode(rule) is not Mode.ENFORCE:
        if sets:
            case.would_change(rule, f"would set {what}")
        else:
            case.passed(rule)
        return
    if sets:
        case.patch.set(("spec", "domain", "cpu", "model"), model)
    if model:
        case.patch.set(("metadata", "annotations", CPU_MODEL), model)
    case.patch.set(("metadata", "annotations", CPU_MODEL_SOURCE), source)
    case.patch.set(("metadata", "annotations", DECISION), case.decision_id)
    case.changed(rule, f"set {what}" if sets else f"annotated {what}")


def validate_created(case: Case) -> None:
    """Warn of a model that hardly any node can run."""
    vmi = VirtualMachineInstance.from_object(in_namespace(case.review))
    written = vmi.annotations.get(DECISION, "")
    owner, dry_run = ("VMI", vmi.namespace, vmi.name), case.review.dry_run
    if is_decision_id(written) and case.memory.claim(written, owner, dry_run=dry_run):
        case.decision_id = written
    _tell_of_fallback(case, vmi)
    tell_of_model(case, effective_model(vmi, case.snapshot.kubevirt).model, f"VM {vmi.key}")


def _unsure(case: Case, vmi: VirtualMachineInstance) -> str:
    """Say why nobody can say which model is to be noted, and who chose it, "" where one can."""
    unsure = ""
    if not vmi.cpu_model or CPU_MODEL in vmi.annotations:
        unsure = unsure_of_default_model(
            vmi, case.snapshot, case.configuration, by_name=case.by_name
        )
    elif _has_instancetype(vmi):
        unsure = case.snapshot.unsure_of("virtualmachines")
    return unsure


def _model_of(case: Case, vmi: VirtualMachineInstance) -> EffectiveModel:
    default = default_model(vmi, case.snapshot, case.configuration)
    if not vmi.cpu_model:
        return default
    told = EffectiveModel(
        vmi.annotations.get(CPU_MODEL, ""), vmi.annotations.get(CPU_MODEL_SOURCE, "")
    )
    if told == default and told.model == vmi.cpu_model:
        # The guard's own doing, seen a second time.
        return told
    return EffectiveModel(vmi.cpu_model, _who_named_it(case, vmi))


def _who_named_it(case: Case, vmi: VirtualMachineInstance) -> str:
    vm = case.snapshot.vms.get(f"{vmi.namespace}/{vmi.owner}") if vmi.owner else None
    return "instancetype" if _has_instancetype(vmi) and not (vm and vm.cpu_model) else "vm"


def _has_instancetype(vmi: VirtualMachineInstance) -> bool:
    return any(key in vmi.annotations for key in _INSTANCETYPES)


def _tell_of_fallback(case: Case, vmi: VirtualMachineInstance) -> None:
    if case.mode(Rule.CPU_MODEL_DEFAULT) is Mode.OFF:
        return
    if case.configuration.cpu_model.default != COMMON_MODEL or case.blind:
        return
    by_default = vmi.annotations.get(CPU_MODEL_SOURCE) in ("cluster", "default")
    if by_default and not common_model(vmi, case.snapshot):
        case.warn(NO_COMMON)


def mutate_updated(case: Case) -> None:
    """Record who wrote an override on a running VMI (docs/rules.md, "Override")."""
    new = VirtualMachineInstance.from_object(in_namespace(case.review))
    before = fields.labels(case.review.old, "metadata", "annotations")
    touched = any(before.get(key) != new.annotations.get(key) for key in (OVERRIDE, OVERRIDE_BY))
    if not touched:
        return
    author = requester.override_author(case.review, new, case.configuration)
    if author or new.annotations.get(OVERRIDE_BY):
        case.patch.set(("metadata", "annotations", OVERRIDE_BY), author)


def validate_updated(case: Case) -> None:
    """Say that an override by somebody who is not entitled does nothing."""
    new = VirtualMachineInstance.from_object(in_namespace(case.review))
    before = fields.labels(case.review.old, "metadata", "annotations")
    wrote = new.annotations.get(OVERRIDE)
    entitled = case.configuration.may_override(case.review.username, case.review.groups)
    if wrote and before.get(OVERRIDE) != wrote and not entitled:
        case.warn(requester.not_entitled(case.review.username))

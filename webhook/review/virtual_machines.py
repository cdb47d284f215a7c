"""VirtualMachines: warned about, or refused, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.cpu import effective_model
from webhook.model.virtual_machine import VirtualMachine
from webhook.model.wording import escaped
from webhook.policy.rules import Mode, Rule
from webhook.review.admission import in_namespace
from webhook.review.annotations import OVERRIDE
from webhook.review.cpu_models import tell_of_model

if TYPE_CHECKING:
    from webhook.review.case import Case


def validate_created(case: Case) -> None:
    """Warn of a model that hardly any node can run."""
    vm = VirtualMachine.from_object(in_namespace(case.review))
    _tell_of_override(case, vm, None)
    tell_of_model(case, vm.cpu_model, f"VM {vm.key}")


def validate_updated(case: Case) -> None:
    """Warn of a changed model: whether nodes can run it, and that it takes a restart."""
    vm = VirtualMachine.from_object(in_namespace(case.review))
    old = VirtualMachine.from_object(case.review.old or fields.EMPTY)
    _tell_of_override(case, vm, old)
    if vm.cpu_model == old.cpu_model:
        return
    tell_of_model(case, vm.cpu_model, f"VM {vm.key}")
    if case.mode(Rule.RESTART_REQUIRED) is Mode.OFF:
        return
    if why := case.snapshot.unsure_of("kubevirts", "virtualmachineinstances"):
        case.conclude_blind(why)
        return
    vmi = case.snapshot.vmis.get(vm.key)
    if vmi is None or vmi.final:
        return
    to_come = effective_model(vm.instance(), case.snapshot.kubevirt).model
    now = effective_model(vmi, case.snapshot.kubevirt).model
    if to_come == now:
        case.passed(Rule.RESTART_REQUIRED)
        return
    case.find(
        Rule.RESTART_REQUIRED,
        f'VM {escaped(vm.namespace)}/{escaped(vm.name)} runs with CPU model "{escaped(now)}"; '
        f'"{escaped(to_come)}" holds after a restart only.',
    )


def _tell_of_override(case: Case, vm: VirtualMachine, old: VirtualMachine | None) -> None:
    written = (vm.annotations.get(OVERRIDE), vm.template_annotations.get(OVERRIDE))
    before = (old.annotations.get(OVERRIDE), old.template_annotations.get(OVERRIDE)) if old else ()
    if any(written) and written != before:
        case.warn(
            f"{OVERRIDE} does nothing on a VM or its template: "
            "write it on the migration, or on the running VMI"
        )

"""The CPU model of a VM that names none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model.baseline import newest_common
from webhook.model.cpu import EffectiveModel, architecture
from webhook.model.unreadable import told
from webhook.model.virtual_machine import HOST_MODEL, HOST_PASSTHROUGH
from webhook.policy.configuration import COMMON_MODEL, KUBEVIRT_MODEL

if TYPE_CHECKING:
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration

_ARM64 = "arm64"


def default_model(
    vmi: VirtualMachineInstance, snapshot: Snapshot, configuration: Configuration
) -> EffectiveModel:
    """Return the model that a VMI without one gets, and who says so.

    The source is ``architecture`` (arm64 is always host-passthrough), ``preset`` (with no model:
    KubeVirt drops a preset's whole CPU block where the VMI has a model, and the guard's pass comes
    first), ``cluster`` or ``default``. ``cpuModel.default: common`` with no model that spans all
    nodes falls back to KubeVirt's own default.
    """
    if architecture(vmi, snapshot.kubevirt) == _ARM64:
        return EffectiveModel(HOST_PASSTHROUGH, "architecture")
    if _has_preset(vmi, snapshot):
        return EffectiveModel("", "preset")
    wanted = configuration.cpu_model.default
    if wanted == COMMON_MODEL:
        wanted = common_model(vmi, snapshot) or KUBEVIRT_MODEL
    if wanted != KUBEVIRT_MODEL:
        return EffectiveModel(wanted, "cluster")
    cluster = snapshot.kubevirt.cpu_model
    return EffectiveModel(cluster or HOST_MODEL, "cluster" if cluster else "default")


def unsure_of_default_model(
    vmi: VirtualMachineInstance,
    snapshot: Snapshot,
    configuration: Configuration,
    *,
    by_name: bool = True,
) -> str:
    """Say why nobody can say which model that is, "" where one can.

    A model that the guard sets wins over KubeVirt's own default, so one that rests on a KubeVirt CR
    of yesterday would hold for the life of the VM.

    Args:
        vmi: As for :func:`default_model`.
        snapshot: Likewise.
        configuration: Likewise.
        by_name: Whether nodes are named.
    """
    if vmi.architecture == _ARM64:
        return ""
    wanted = configuration.cpu_model.default
    kinds = ["virtualmachineinstancepresets"]
    if wanted in (KUBEVIRT_MODEL, COMMON_MODEL) or not vmi.architecture:
        kinds.append("kubevirts")
    if wanted == COMMON_MODEL:
        kinds.append("nodes")
    presets = snapshot.unreadable.get("presets", ())
    return snapshot.unsure_of(*kinds, by_name=by_name) or told(
        "VirtualMachineInstancePreset", [p for p in presets if p.namespace == vmi.namespace]
    )


def common_model(vmi: VirtualMachineInstance, snapshot: Snapshot) -> str:
    """Return the newest model that every node of a VMI's architecture can run, "" for none."""
    kinds = tuple(group.representative for group in snapshot.nodes.groups)
    return newest_common(kinds, architecture=architecture(vmi, snapshot.kubevirt)) or ""


def _has_preset(vmi: VirtualMachineInstance, snapshot: Snapshot) -> bool:
    return any(
        preset.namespace == vmi.namespace and preset.selector.matches(vmi.labels)
        for preset in snapshot.presets
    )

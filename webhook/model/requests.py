"""What a VM's pod asks of a node when no pod of it is among the facts.

Source: KubeVirt ``pkg/virt-controller/services/renderresources.go``. The overhead of virt-launcher
and QEMU is left out, so that what is derived is never more than what KubeVirt really asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields, quantity
from webhook.model.node import resources

if TYPE_CHECKING:
    from fractions import Fraction

    from webhook.model.kubevirt import KubeVirt
    from webhook.model.virtual_machine import VirtualMachineInstance


def derived_requests(vmi: VirtualMachineInstance, kv: KubeVirt) -> dict[str, int]:
    """Return a lower bound of the pod's requests, in thousandths of the base unit.

    Raises:
        InvalidObject: A quantity of the VMI is none.
    """
    at = ("domain", "resources")
    asked = dict(resources(vmi.spec, *at, "limits"))
    asked.update(resources(vmi.spec, *at, "requests"))
    guest = guest_memory(vmi)
    pages = fields.text(vmi.spec, "domain", "memory", "hugepages", "pageSize")
    memory = quantity.ceil(guest * 1000) if guest is not None else None
    if pages and memory is not None:
        asked[f"hugepages-{pages}"] = memory
        asked.pop("memory", None)
    elif memory is not None and "memory" not in resources(vmi.spec, *at, "requests"):
        asked["memory"] = memory * 100 // kv.memory_overcommit
    if "cpu" not in asked:
        per_cpu = 1000 if vmi.dedicated_cpus else 1000 // max(kv.cpu_allocation_ratio, 1)
        asked["cpu"] = vcpus(vmi) * per_cpu
    for kind in ("gpus", "hostDevices"):
        for device in fields.items(vmi.spec, "domain", "devices", kind):
            if name := fields.text(device, "deviceName"):
                asked[name] = asked.get(name, 0) + 1000
    return asked


def guest_memory(vmi: VirtualMachineInstance) -> Fraction | None:
    """Return the guest's memory in bytes: guest memory, else requests, else limits, else None.

    Raises:
        InvalidObject: The quantity is none.
    """
    for path in (
        ("domain", "memory", "guest"),
        ("domain", "resources", "requests", "memory"),
        ("domain", "resources", "limits", "memory"),
    ):
        if written := fields.text(vmi.spec, *path):
            try:
                return quantity.parse(written)
            except quantity.InvalidQuantity as error:
                raise fields.InvalidObject(".".join(("spec", *path)), str(error)) from None
    return None


def vcpus(vmi: VirtualMachineInstance) -> int:
    """Return the number of virtual CPUs, at least one."""
    count = 1
    for part in ("cores", "sockets", "threads"):
        count *= fields.integer(vmi.spec, "domain", "cpu", part) or 1
    return max(count, 1)

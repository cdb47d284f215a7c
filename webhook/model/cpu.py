"""CPU models: the one a VM effectively has, and what a node's labels say of its own.

Sources: KubeVirt ``pkg/defaults/defaults.go`` and ``arm64.go`` (defaulting),
``pkg/virt-handler/node-labeller`` (labels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from webhook.model import labels
from webhook.model.virtual_machine import HOST_MODEL, HOST_PASSTHROUGH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.kubevirt import KubeVirt
    from webhook.model.virtual_machine import VirtualMachineInstance

CPU_LABELS = (
    labels.HOST_MODEL_REQUIRED_FEATURES,
    labels.CPU_FEATURE,
    labels.HOST_MODEL_CPU,
    labels.CPU_VENDOR,
)
"""How the labels begin that :func:`host_cpu` reads."""


class EffectiveModel(NamedTuple):
    """A CPU model and who said so: vm, cluster, default or architecture."""

    model: str
    source: str


def architecture(vmi: VirtualMachineInstance, kv: KubeVirt) -> str:
    """Return the guest's architecture: its own, else the cluster's default."""
    return vmi.architecture or kv.default_architecture


def effective_model(vmi: VirtualMachineInstance, kv: KubeVirt) -> EffectiveModel:
    """Return the CPU model that KubeVirt gives a VMI.

    The VM's own, else on arm64 host-passthrough, else the cluster default, else host-model.
    """
    if vmi.cpu_model:
        return EffectiveModel(vmi.cpu_model, "vm")
    if architecture(vmi, kv) == "arm64":
        return EffectiveModel(HOST_PASSTHROUGH, "architecture")
    if kv.cpu_model:
        return EffectiveModel(kv.cpu_model, "cluster")
    return EffectiveModel(HOST_MODEL, "default")


@dataclass(frozen=True, slots=True)
class HostCpu:
    """A node's CPU as its labels tell it.

    Attributes:
        model: The host model, "" where no label tells it.
        selectors: The node selector that a host-model guest of this node needs elsewhere.
        vendors: Usually one; stale labels of a former CPU are never removed.
        identity: The labels that a host-passthrough guest of this node may miss elsewhere.
    """

    model: str
    selectors: Mapping[str, str]
    vendors: tuple[str, ...]
    identity: frozenset[str]


def host_cpu(node_labels: Mapping[str, str]) -> HostCpu:
    """Read a node's own CPU from its labels."""
    models = []
    vendors = []
    selectors = {}
    identity = set()
    for key, value in node_labels.items():
        cut = key.find("/") + 1
        prefix = key[:cut]
        if prefix == labels.HOST_MODEL_REQUIRED_FEATURES:
            selectors[labels.CPU_FEATURE + key[cut:]] = value
        elif value != "true":
            continue
        elif prefix == labels.CPU_FEATURE:
            identity.add(key)
        elif prefix == labels.HOST_MODEL_CPU:
            identity.add(key)
            models.append(key[cut:])
        elif prefix == labels.CPU_VENDOR:
            vendors.append(key[cut:])
    model = min(models, default="")
    if model:
        selectors[labels.CPU_MODEL_MIGRATION + model] = "true"
    return HostCpu(model, selectors, tuple(sorted(vendors)), frozenset(identity))

"""Kinds of VMs, for the comparison with the real virt-controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.testbed.bed.api import Object
from tests.testbed.bed.pool import vm_manifest

Kinds = Mapping[str, Callable[[str], Object]]

ZONES = {"key": "zone", "operator": "In", "values": ["a", "b"]}
NOT_OLD = {"key": "generation", "operator": "NotIn", "values": ["old"]}


def plain(
    model: str | None = None, features: Mapping[str, str] | None = None
) -> Callable[[str], Object]:
    """Return how a VM with this CPU is described."""
    return lambda name: vm_manifest(name, model, features)


def _with_spec(model: str | None = None, **more: object) -> Callable[[str], Object]:
    def describe(name: str) -> Object:
        vm = vm_manifest(name, model)
        vm["spec"]["template"]["spec"].update(more)
        return vm

    return describe


def _with_domain(model: str | None = None, **more: object) -> Callable[[str], Object]:
    def describe(name: str) -> Object:
        vm = vm_manifest(name, model)
        vm["spec"]["template"]["spec"]["domain"].update(more)
        return vm

    return describe


def _node_affinity(*terms: Object) -> Object:
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


_TWO_TERMS = _node_affinity({"matchExpressions": [ZONES]}, {"matchExpressions": [NOT_OLD]})
_AWAY_FROM_OTHERS = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {
                "labelSelector": {"matchLabels": {"app": "nobody"}},
                "topologyKey": "kubernetes.io/hostname",
            }
        ]
    }
}

KINDS: Kinds = {
    "model unset": plain(),
    "host-model": plain("host-model"),
    "host-passthrough": plain("host-passthrough"),
    "named": plain("Haswell"),
    "named, old": plain("Penryn"),
    "host-model, required feature": plain("host-model", {"aes": "require"}),
    "host-model, feature without policy": plain("host-model", {"avx": ""}),
    "host-model, optional feature": plain("host-model", {"aes": "optional"}),
    "host-model, disabled feature": plain("host-model", {"umip": "disable"}),
    "host-model, forced feature": plain("host-model", {"hle": "force"}),
    "host-model, forbidden feature": plain("host-model", {"hle": "forbid"}),
    "named, required features": plain("Haswell", {"aes": "require", "avx2": "require"}),
    "named, forbidden feature": plain("Haswell", {"hle": "forbid"}),
    "passthrough, required feature": plain("host-passthrough", {"aes": "require"}),
    "host-model, node selector": _with_spec("host-model", nodeSelector={"zone": "a"}),
    "host-model, node affinity": _with_spec("host-model", affinity=_TWO_TERMS),
    "named, node affinity": _with_spec("Haswell", affinity=_TWO_TERMS),
    "host-model, empty affinity term": _with_spec(
        "host-model", affinity=_node_affinity({"matchExpressions": [ZONES]}, {})
    ),
    "host-model, pod anti-affinity": _with_spec("host-model", affinity=_AWAY_FROM_OTHERS),
    "host-model, machine type": _with_domain("host-model", machine={"type": "q35"}),
    "host-model, tolerations": _with_spec(
        "host-model", tolerations=[{"key": "dedicated", "operator": "Exists"}]
    ),
    "named, hyperv": _with_domain(
        "Haswell", features={"hyperv": {"vpindex": {"enabled": True}, "relaxed": {"enabled": True}}}
    ),
}

FORGETS_THE_SOURCE = ("host-model, required feature", "host-model, feature without policy")
"""Where KubeVirt leaves out the source's host model and its features: a feature that the VM itself
requires is taken for what an earlier migration remembered."""

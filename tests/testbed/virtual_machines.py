"""Kinds of VMs that demand different things of a node, and the kinds of nodes where they start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.testbed.bed.api import Object
from tests.testbed.bed.pool import vm_manifest
from webhook.model import labels

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
VENDOR = labels.CPU_VENDOR
NETWORK = "network.harvesterhci.io/mgmt"

HYPERV_FEATURES = (
    *("vpindex", "runtime", "reset", "synic", "synictimer", "frequencies"),
    *("reenlightenment", "tlbflush", "ipi"),
)
EVERY_NODE: Mapping[str, str] = {
    "test/cluster": "yes",
    "test/zone": "a",
    "test/rank": "7",
    "kubevirt.io/cpumanager": "true",
    "kubevirt.io/realtime": "true",
    "kubevirt.io/sev": "true",
    "kubevirt.io/sev-es": "true",
    "cpu-feature.node.kubevirt.io/invtsc": "true",
    NETWORK: "true",
    **{f"hyperv.node.kubevirt.io/{name}": "true" for name in HYPERV_FEATURES},
}
"""Labels beside those of the CPU, so that every kind of VM can start on every node."""


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of node: its CPU, and labels that differ from it (None removes one)."""

    cpu: str
    labels: Mapping[str, str | None] = field(default_factory=dict)


SOURCES: Mapping[str, SourceKind] = {
    "cascadelake": SourceKind("cascadelake"),
    "icelake": SourceKind("icelake"),
    "milan": SourceKind("milan"),
    "no-host-model": SourceKind(
        "cascadelake", {f"{labels.HOST_MODEL_CPU}Cascadelake-Server": None}
    ),
    "two-vendors": SourceKind("icelake", {f"{VENDOR}AMD": "true"}),
}
EVERYWHERE = tuple(SOURCES)
INTEL = ("cascadelake", "icelake")


@dataclass(frozen=True, slots=True)
class VmKind:
    """A kind of VM.

    Attributes:
        spec: Merged into the spec of a small VMI.
        sources: The kinds of nodes where one is started.
    """

    name: str
    spec: Object
    sources: tuple[str, ...] = ("cascadelake",)


def vmi_manifest(name: str, kind: VmKind) -> Object:
    """Describe a VMI of a kind."""
    vm = vm_manifest(name)
    spec = vm["spec"]["template"]["spec"]
    spec["domain"]["memory"] = {"guest": "256Mi"}
    return {
        "apiVersion": vm["apiVersion"],
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"app": kind.name}},
        "spec": _merged(spec, kind.spec),
    }


def _merged(base: Object, more: Object) -> Object:
    found = dict(base)
    for key, wanted in more.items():
        known = found.get(key)
        if isinstance(known, dict) and isinstance(wanted, dict):
            found[key] = _merged(known, wanted)
        else:
            found[key] = wanted
    return found


def _cpu(model: str | None = None, **policies: str) -> Object:
    cpu: Object = {} if model is None else {"model": model}
    if policies:
        cpu["features"] = [
            {"name": name, **({"policy": policy} if policy else {})}
            for name, policy in policies.items()
        ]
    return {"domain": {"cpu": cpu}}


def _hyperv(model: str, **features: Any) -> Object:
    return {"domain": {"cpu": {"model": model}, "features": {"acpi": {}, "hyperv": features}}}


def _machine(kind: str) -> Object:
    return {"domain": {"machine": {"type": kind}}}


def _affinity(*terms: Object, model: str = "host-model") -> Object:
    required = {"nodeSelectorTerms": list(terms)}
    affinity = {"nodeAffinity": {REQUIRED: required}}
    return {"affinity": affinity, **_cpu(model)}


def _term(key: str, operator: str, *values: str) -> Object:
    expression: Object = {"key": key, "operator": operator}
    if values:
        expression["values"] = list(values)
    return {"matchExpressions": [expression]}


_ON = {"enabled": True}
_ALL_OF_HYPERV = {
    "relaxed": _ON,
    "vapic": _ON,
    "spinlocks": {"spinlocks": 8191},
    "vpindex": _ON,
    "runtime": _ON,
    "synic": _ON,
    "synictimer": {"enabled": True, "direct": _ON},
    "reset": _ON,
    "frequencies": _ON,
    "tlbflush": _ON,
    "ipi": _ON,
}
_LIKED = {"weight": 1, "preference": _term("test/zone", "In", "b")}
_NEAR = {
    "labelSelector": {"matchLabels": {"app": "no-such"}},
    "topologyKey": "kubernetes.io/hostname",
}
_ELSEWHERE = {"key": "metadata.name", "operator": "NotIn", "values": ["no-such-node"]}

KINDS: tuple[VmKind, ...] = (
    VmKind("plain", {}, EVERYWHERE),
    VmKind("host-model", _cpu("host-model"), EVERYWHERE),
    VmKind("passthrough", _cpu("host-passthrough"), EVERYWHERE),
    VmKind("haswell", _cpu("Haswell"), ("cascadelake", "icelake", "no-host-model", "two-vendors")),
    VmKind("epyc", _cpu("EPYC-Rome"), ("milan",)),
    VmKind("required", _cpu("host-model", aes="require"), EVERYWHERE),
    VmKind("required-too", _cpu("host-model", avx512f="", aes="require"), INTEL),
    VmKind("required-by-default-model", _cpu(None, avx2="require"), ("icelake", "milan")),
    VmKind("optional", _cpu("host-model", avx2="optional"), ("cascadelake", "milan")),
    VmKind("disabled", _cpu("host-model", pku="disable"), ("cascadelake", "milan")),
    VmKind("forced", _cpu("host-model", avx="force"), ("icelake",)),
    VmKind("forbidden", _cpu("host-model", xop="forbid", tbm="forbid"), ("icelake", "milan")),
    VmKind("named-required", _cpu("Haswell", aes="require", pku="optional"), INTEL),
    VmKind("named-forbidden", _cpu("Haswell", aes="require", xop="forbid"), INTEL),
    VmKind("passthrough-required", _cpu("host-passthrough", aes="require"), ("icelake", "milan")),
    VmKind("passthrough-forbidden", _cpu("host-passthrough", xop="forbid"), ("milan",)),
    VmKind("every-policy", _cpu("host-model", aes="", avx="force", pku="disable", xop="forbid")),
    VmKind("hyperv", _hyperv("Haswell", **_ALL_OF_HYPERV), INTEL),
    VmKind("hyperv-off", _hyperv("host-model", synic={"enabled": False}, vpindex=_ON)),
    VmKind("evmcs", _hyperv("host-model", evmcs={}, vapic=_ON), INTEL),
    VmKind("evmcs-named", _hyperv("Haswell", evmcs=_ON, vapic=_ON)),
    VmKind("reenlightenment", _hyperv("Haswell", reenlightenment=_ON, frequencies=_ON)),
    VmKind("invtsc", _cpu("host-model", invtsc="require"), ("cascadelake", "milan")),
    VmKind("q35", _machine("q35"), ("icelake",)),
    VmKind("concrete-machine", _machine("pc-q35-rhel9.6.0"), ("milan",)),
    VmKind("architecture", {"architecture": "amd64"}),
    VmKind("selector", {"nodeSelector": {"test/zone": "a", "test/cluster": "yes"}}, INTEL),
    VmKind("selects-vendor", {"nodeSelector": {f"{VENDOR}Intel": "true"}}, INTEL),
    VmKind("one-term", _affinity(_term("test/zone", "In", "a", "b")), ("cascadelake", "milan")),
    VmKind("terms", _affinity(_term("test/zone", "In", "b"), _term("test/rank", "Gt", "5"))),
    VmKind("less-than", _affinity(_term("test/rank", "Lt", "9"), model="Haswell")),
    VmKind("not-in", _affinity(_term("test/zone", "NotIn", "b"), model="host-passthrough")),
    VmKind("exists", _affinity(_term("test/zone", "Exists"), {}), ("icelake",)),
    VmKind("empty-term", _affinity({}, _term("test/no", "Exists")), ("icelake",)),
    VmKind("does-not-exist", _affinity(_term("test/no", "DoesNotExist")), ("milan",)),
    VmKind("by-name", _affinity({"matchFields": [_ELSEWHERE]}), ("icelake",)),
    VmKind(
        "term-and-forbidden",
        {
            **_affinity(_term("test/zone", "In", "a"), _term("test/zone", "In", "b")),
            **_cpu("host-model", xop="forbid"),
        },
    ),
    VmKind(
        "preferred",
        {"affinity": {"nodeAffinity": {PREFERRED: [_LIKED]}}},
    ),
    VmKind(
        "away-from-others",
        {"affinity": {"podAntiAffinity": {REQUIRED: [_NEAR]}}},
    ),
    VmKind("network", _affinity(_term(NETWORK, "In", "true"), model="Haswell"), INTEL),
    VmKind(
        "tolerant",
        {
            "tolerations": [
                {"key": "test/team", "operator": "Equal", "value": "x", "effect": "NoSchedule"},
                {
                    "key": "test/gpu",
                    "operator": "Exists",
                    "tolerationSeconds": 60,
                    "effect": "NoExecute",
                },
            ]
        },
        ("cascadelake", "milan"),
    ),
    VmKind("dedicated", {"domain": {"cpu": {"dedicatedCpuPlacement": True}}}, ("icelake",)),
    VmKind(
        "realtime",
        {
            "domain": {
                "cpu": {
                    "dedicatedCpuPlacement": True,
                    "realtime": {},
                    "numa": {"guestMappingPassthrough": {}},
                },
                "memory": {"guest": "256Mi", "hugepages": {"pageSize": "2Mi"}},
            }
        },
    ),
    VmKind(
        "sev",
        {
            "domain": {
                "launchSecurity": {"sev": {}},
                "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
            }
        },
        ("milan",),
    ),
)

FORGET_THE_SOURCE = frozenset(
    {"required", "required-too", "required-by-default-model", "every-policy", "evmcs", "invtsc"}
)
"""Host-model VMs that require a feature themselves: at their first migration KubeVirt takes it for
what an earlier one remembered, and leaves out the source's model and features."""

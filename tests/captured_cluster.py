"""The cluster in which the reviews and defects in tests/fixtures were captured.

Two Cascade Lake nodes, an Ice Lake and an EPYC Milan one, with synthetic labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
OLD_MODELS = [
    "Penryn",
    "Nehalem",
    "Westmere",
    "SandyBridge",
    "IvyBridge",
    "Haswell",
    "Haswell-IBRS",
    "Haswell-noTSX",
    "Broadwell",
    "Broadwell-IBRS",
    "Broadwell-noTSX",
    "Skylake-Client",
    "Skylake-Server",
    "Skylake-Server-IBRS",
    "Skylake-Server-noTSX-IBRS",
]
FEATURES = [
    "aes",
    "apic",
    "avx",
    "avx2",
    "bmi1",
    "bmi2",
    "cx16",
    "fma",
    "fsgsbase",
    "invpcid",
    "lahf_lm",
    "movbe",
    "pcid",
    "pclmuldq",
    "popcnt",
    "rdrand",
    "rdtscp",
    "sse4.1",
    "sse4.2",
    "ssse3",
    "xsave",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "clflushopt",
    "clwb",
]
AMD_MODELS = ["EPYC", "EPYC-IBPB", "EPYC-Rome"]
AMD_FEATURES = [f for f in FEATURES if not f.startswith("avx512")]
AMD_FEATURES += ["svm", "sse4a", "misalignsse", "clzero"]
CASCADELAKE_FEATURES = ["avx512vnni", "md-clear", "pku", "umip", "vmx"]


def captured(path: str) -> Any:
    """Read a fixture."""
    return json.loads((FIXTURES / path).read_text(encoding="utf-8"))


def node(
    name: str, vendor: str, host: str, models: list[str], features: list[str], required: list[str]
) -> dict[str, Any]:
    """Make a node as it stood in that cluster."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubevirt.io/schedulable": "true",
        "kubevirt.io/cpumanager": "false",
        f"cpu-vendor.node.kubevirt.io/{vendor}": "true",
        f"host-model-cpu.node.kubevirt.io/{host}": "true",
        "cpu-timer.node.kubevirt.io/tsc-frequency": "2194843000",
        "cpu-timer.node.kubevirt.io/tsc-scalable": "false",
        "machine-type.node.kubevirt.io/q35": "true",
        "machine-type.node.kubevirt.io/pc-q35-rhel9.6.0": "true",
    }
    for model in [*models, host]:
        labels[f"cpu-model.node.kubevirt.io/{model}"] = "true"
        labels[f"cpu-model-migration.node.kubevirt.io/{model}"] = "true"
    for feature in [*features, *required]:
        labels[f"cpu-feature.node.kubevirt.io/{feature}"] = "true"
    for feature in required:
        labels[f"host-model-required-features.node.kubevirt.io/{feature}"] = "true"
    size = {
        "cpu": "16",
        "memory": "64Gi",
        "pods": "110",
        "ephemeral-storage": "200Gi",
        "devices.kubevirt.io/kvm": "1k",
        "devices.kubevirt.io/tun": "1k",
        "devices.kubevirt.io/vhost-net": "1k",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": size, "capacity": size},
    }


def nodes() -> list[dict[str, Any]]:
    """Make all four nodes."""
    icelake = [*FEATURES, "avx512vnni", "vmx", "pku"]
    return [
        node("node01", "Intel", "Cascadelake-Server", OLD_MODELS, FEATURES, CASCADELAKE_FEATURES),
        node("node02", "Intel", "Cascadelake-Server", OLD_MODELS, FEATURES, CASCADELAKE_FEATURES),
        node(
            "node03",
            "Intel",
            "Icelake-Server",
            [*OLD_MODELS, "Cascadelake-Server"],
            icelake,
            ["gfni", "md-clear", "sha-ni", "umip"],
        ),
        node(
            "node04",
            "AMD",
            "EPYC-Milan",
            AMD_MODELS,
            AMD_FEATURES,
            ["ibrs", "ssbd", "umip", "pku"],
        ),
    ]


def kubevirt() -> dict[str, Any]:
    """Return that cluster's KubeVirt CR."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {},
        "status": {
            "observedKubeVirtVersion": "v1.8.4",
            "targetKubeVirtVersion": "v1.8.4",
            "defaultArchitecture": "amd64",
        },
    }


def running_vmi() -> dict[str, Any]:
    """Return the VMI of the captured migration, as it ran on node01."""
    obj = captured("reviews-1.8.4/vmi-create-validating.json")["request"]["object"]
    pod = captured("reviews-1.8.4/target-pod-create-validating.json")["request"]["object"]
    owner = pod["metadata"]["ownerReferences"][0]
    metadata = {**obj["metadata"], "name": owner["name"], "uid": owner["uid"]}
    return {
        **obj,
        "metadata": metadata,
        "status": {
            **obj.get("status", {}),
            "phase": "Running",
            "nodeName": "node01",
            "machine": {"type": "pc-q35-rhel9.6.0"},
            "conditions": [{"type": "LiveMigratable", "status": "True"}],
        },
    }


def source_pod(**selectors: str) -> dict[str, Any]:
    """Return the VMI's pod on node01, with further node selectors."""
    obj = captured("reviews-1.8.4/source-pod-create-mutating-after.json")["request"]["object"]
    owner = running_vmi()["metadata"]
    metadata = {
        **obj["metadata"],
        "name": "virt-launcher-source",
        "namespace": "default",
        "creationTimestamp": "2026-11-23T08:50:00Z",
        "labels": {**obj["metadata"]["labels"], "kubevirt.io/created-by": owner["uid"]},
    }
    spec = {**obj["spec"], "nodeName": "node01"}
    spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **selectors}
    return {**obj, "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def migration() -> dict[str, Any]:
    """Return the VMIM of the captured target pod."""
    pod = captured("reviews-1.8.4/target-pod-create-validating.json")["request"]["object"]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {
            "name": pod["metadata"]["annotations"]["kubevirt.io/migrationJobName"],
            "namespace": "default",
            "uid": pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"],
        },
        "spec": {"vmiName": pod["metadata"]["annotations"]["kubevirt.io/domain"]},
    }

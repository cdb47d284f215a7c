"""Clusters of any size with 24 CPU types, made from a seed: the same ones at every run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.kubevirt import KubeVirt
from webhook.model.migration import LauncherPod
from webhook.model.node import Node
from webhook.model.node_groups import NodeGroups
from webhook.model.snapshot import Snapshot, repelling_terms
from webhook.model.virtual_machine import VirtualMachineInstance

if TYPE_CHECKING:
    from collections.abc import Mapping

GIB = 1 << 30
ZONES = 5
NAMESPACES = 50
INTEL_TYPES = 16
AMD_TYPES = 8
CPU_TYPES = INTEL_TYPES + AMD_TYPES
SPREAD = 5
# vCPUs and GiB.
SIZES = ((1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 32), (16, 64))
COMMON_FEATURES = 24
FEATURES_A_GENERATION = 5
# Of the guests that were migrated, the part that came from a CPU that no node has any more.
RETIRED = 0.05


def cpu_labels(kind: int) -> dict[str, str]:
    """Return the CPU labels of a node, as virt-handler writes them, of one of the 24 CPU types."""
    intel = kind < INTEL_TYPES
    family, generation = ("Intel", kind) if intel else ("AMD", kind - INTEL_TYPES)
    models = ["qemu64", "kvm64", "Common-v1", *(f"{family}-Gen{g}" for g in range(generation + 1))]
    own = f"{family}-Gen{generation}"
    features = [f"common-{n}" for n in range(COMMON_FEATURES)]
    for g in range(generation + 1):
        features += [f"{family.lower()}-{g}-{n}" for n in range(FEATURES_A_GENERATION)]
    found = {labels.CPU_VENDOR + family: "true", labels.HOST_MODEL_CPU + own: "true"}
    found |= {labels.CPU_MODEL + m: "true" for m in models}
    found |= {labels.CPU_MODEL_MIGRATION + m: "true" for m in models}
    found |= {labels.CPU_FEATURE + f: "true" for f in features}
    found |= {labels.HOST_MODEL_REQUIRED_FEATURES + f: "true" for f in features[::2]}
    found |= {labels.HYPERV + f: "true" for f in ("vpindex", "synic", "runtime", "reset", "ipi")}
    found |= {
        labels.MACHINE_TYPE + m: "true" for m in ("q35", "pc-q35-rhel9.4.0", "pc-q35-rhel9.6.0")
    }
    return found


def kind_of(index: int) -> int:
    """Return the CPU type of a node by its number; few nodes are of types far apart."""
    return index * SPREAD % CPU_TYPES


def _nodes(count: int, seed: random.Random) -> list[Node]:
    kinds = [cpu_labels(kind) for kind in range(CPU_TYPES)]
    found = []
    for index in range(count):
        kind = kind_of(index)
        hertz = 2_000_000_000 + 100_000 * seed.randrange(100)
        cores = 32 if kind % 2 else 64
        # Equal machines report memory that differs by some pages.
        memory = (cores * 4 * GIB - seed.randrange(64) * 4096) * 1000
        found.append(
            Node(
                name=f"node-{index:04}",
                labels={
                    **kinds[kind],
                    labels.SCHEDULABLE: "true",
                    labels.ARCH: "amd64",
                    labels.HOSTNAME: f"node-{index:04}",
                    "topology.kubernetes.io/zone": f"zone-{index // CPU_TYPES % ZONES}",
                    labels.TSC_FREQUENCY_OF_NODE: str(hertz),
                    labels.TSC_SCALABLE: "true",
                    f"{labels.TSC_FREQUENCY}{hertz}": "true",
                },
                cordoned=index % 200 == 199,
                capacity={"cpu": cores * 1000, "memory": memory},
                allocatable={"cpu": cores * 1000 - 500, "memory": memory - 2 * GIB * 1000},
            )
        )
    return found


def _vmi(index: int, node: Node, kind: int, seed: random.Random) -> VirtualMachineInstance:
    cores, gib = SIZES[seed.choices(range(len(SIZES)), (20, 25, 20, 15, 10, 7, 3))[0]]
    name = f"vm-{index:05}"
    marks = {"kubevirt.io/vm": name, "app": f"app-{index // 3}"}
    cpu: dict[str, object] = {"cores": cores, "model": "host-model"}
    spec: dict[str, object] = {}
    drawn = seed.random()
    if drawn < 0.30:
        family, own = ("Intel", kind) if kind < INTEL_TYPES else ("AMD", kind - INTEL_TYPES)
        cpu["model"] = seed.choice(("Common-v1", f"{family}-Gen{min(own, 3)}"))
    elif drawn < 0.32:
        cpu["model"] = "host-passthrough"
    elif drawn < 0.34:
        cpu["features"] = [{"name": "common-1", "policy": "require"}]
    drawn = seed.random()
    if drawn < 0.05:
        spec["affinity"] = _near(f"zone-{seed.randrange(ZONES)}", f"zone-{seed.randrange(ZONES)}")
    elif drawn < 0.10:
        spec["affinity"] = _apart(marks["app"])
    elif drawn < 0.12:
        spec["nodeSelector"] = {"topology.kubernetes.io/zone": f"zone-{seed.randrange(ZONES)}"}
    spec["domain"] = {
        "cpu": cpu,
        "memory": {"guest": f"{gib}Gi"},
        "machine": {"type": "q35"},
        "resources": {"requests": {"memory": f"{gib}Gi"}},
    }
    unmovable = {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"}
    return VirtualMachineInstance.from_object(
        {
            "metadata": {
                "name": name,
                "namespace": f"team-{index // 3 % NAMESPACES}",
                "uid": f"uid-{index}",
                "labels": marks,
            },
            "spec": {"architecture": "amd64", **spec},
            "status": {
                "phase": "Running",
                "nodeName": node.name,
                "machine": {"type": "pc-q35-rhel9.6.0"},
                "conditions": [unmovable] if seed.random() < 0.01 else [],
            },
        }
    )


def _near(*zones: str) -> dict[str, object]:
    expression = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": list(zones)}
    terms = [{"matchExpressions": [expression]}]
    required = {"nodeSelectorTerms": terms}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _apart(app: str) -> dict[str, object]:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": labels.HOSTNAME}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _pod(vmi: VirtualMachineInstance, node: Node, seed: random.Random) -> LauncherPod:
    """Return the VM's pod; one in five was migrated here and remembers a CPU."""
    selector = {labels.SCHEDULABLE: "true", labels.ARCH: "amd64", **vmi.node_selector}
    if vmi.cpu_model not in ("host-model", "host-passthrough"):
        selector[labels.CPU_MODEL + vmi.cpu_model] = "true"
    migrated = seed.random() < 0.2
    if migrated and vmi.cpu_model == "host-model":
        cut = len(labels.HOST_MODEL_REQUIRED_FEATURES)
        for key in node.labels:
            if key.startswith(labels.HOST_MODEL_REQUIRED_FEATURES):
                selector[labels.CPU_FEATURE + key[cut:]] = "true"
        own = labels.names(node.labels, labels.HOST_MODEL_CPU)[0]
        if seed.random() < RETIRED:
            own = "Retired"
        selector[labels.CPU_MODEL_MIGRATION + own] = "true"
    gib = int(vmi.spec["domain"]["memory"]["guest"][:-2])
    cores = int(vmi.spec["domain"]["cpu"]["cores"])
    return LauncherPod.from_object(
        {
            "metadata": {
                "name": f"virt-launcher-{vmi.name}",
                "namespace": vmi.namespace,
                "labels": {
                    **vmi.labels,
                    labels.CREATED_BY: vmi.uid,
                    **({labels.MIGRATION_UID: f"m-{vmi.uid}"} if migrated else {}),
                },
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "nodeName": node.name,
                "nodeSelector": selector,
                "affinity": vmi.affinity,
                "schedulerName": "default-scheduler",
                "containers": [
                    {"resources": {"requests": {"cpu": f"{cores}00m", "memory": f"{gib * 1074}Mi"}}}
                ],
            },
        }
    )


def cluster(nodes: int, vms: int, *, filled: tuple[float, float] = (0.3, 1.0)) -> Snapshot:
    """Make a cluster: nodes with VMs on them, and other pods that fill them to varying degrees.

    Args:
        nodes: How many.
        vms: How many.
        filled: Of each node, a part between these two is in use.
    """
    seed = random.Random(nodes * 100_003 + vms)
    made = _nodes(nodes, seed)
    used: dict[str, Mapping[str, int]] = {}
    for node in made:
        part = seed.uniform(*filled)
        used[node.name] = {name: int(n * part) for name, n in node.allocatable.items()}
    vmis, pods = {}, {}
    for index in range(vms):
        place = seed.randrange(nodes)
        vmi = _vmi(index, made[place], kind_of(place), seed)
        vmis[vmi.key] = vmi
        pods[vmi.uid] = (_pod(vmi, made[place], seed),)
    return Snapshot(
        nodes=NodeGroups(made, used),
        kubevirt=KubeVirt(known=True),
        vmis=vmis,
        pods=pods,
        namespaces={f"team-{n}": {} for n in range(NAMESPACES)},
        repelling=repelling_terms(pods),
    )

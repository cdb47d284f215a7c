"""The sample clusters as a cluster has them: objects of realistic size, for a real API server."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from sample.clusters import ZONES, cpu_labels, kind_of
from webhook.model import labels

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

NAMESPACES = 20
# A node of a cluster in use lists the images it holds, 50 by default (kubelet's
# nodeStatusMaxImages), with their digests.
IMAGES = 50
KUBEVIRT = "kubevirt.io/v1"


def namespaces() -> Iterator[Object]:
    for number in range(NAMESPACES):
        yield _object("v1", "Namespace", f"team-{number}")


def node(index: int) -> Object:
    name = f"node-{index:04}"
    hertz = 2_000_000_000 + 100_000 * (index % 100)
    marks = {
        **cpu_labels(kind_of(index)),
        labels.SCHEDULABLE: "true",
        labels.ARCH: "amd64",
        labels.HOSTNAME: name,
        "topology.kubernetes.io/zone": f"zone-{index % ZONES}",
        labels.TSC_FREQUENCY_OF_NODE: str(hertz),
        labels.TSC_SCALABLE: "true",
        f"{labels.TSC_FREQUENCY}{hertz}": "true",
    }
    made = _object("v1", "Node", name, marks)
    made["metadata"]["annotations"] = {"kubevirt.io/heartbeat": "2026-01-01T00:00:00Z"}
    size = {"cpu": "64", "memory": f"{256 * 1024 - index % 64}Mi", "pods": "250"}
    made["status"] = {
        "capacity": size,
        "allocatable": size,
        "conditions": [
            {"type": kind, "status": str(kind == "Ready"), "reason": kind, "message": "as it is"}
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")
        ],
        "images": [
            {
                "names": [
                    f"registry.example.org/some/team/image-{n}@sha256:{n:064x}",
                    f"registry.example.org/some/team/image-{n}:v1.{n}",
                ],
                "sizeBytes": 10_000_000 + n,
            }
            for n in range(IMAGES)
        ],
        "nodeInfo": {"kubeletVersion": "v1.36.3"},
    }
    return made


def virtual_machine(index: int, nodes: int) -> tuple[Object, Object, Object]:
    """Return a VM, its VMI and its virt-launcher pod."""
    seed = random.Random(index)
    place = seed.randrange(nodes)
    name, namespace = f"vm-{index:05}", f"team-{index % NAMESPACES}"
    cpu = {"cores": seed.choice((1, 2, 4)), "model": seed.choice(("host-model", "Common-v1"))}
    gib = seed.choice((2, 4, 8))
    spec: Object = {
        "architecture": "amd64",
        "domain": {
            "cpu": cpu,
            "machine": {"type": "q35"},
            "memory": {"guest": f"{gib}Gi"},
            "resources": {"requests": {"memory": f"{gib}Gi"}},
            "devices": {
                "disks": [{"name": n, "disk": {"bus": "virtio"}} for n in ("root", "init")],
                "interfaces": [{"name": "default", "masquerade": {}, "model": "virtio"}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "registry.example.org/disks/debian:12"}},
            {"name": "init", "cloudInitNoCloud": {"userData": "#cloud-config\n" + "# x\n" * 200}},
        ],
    }
    marks = {"kubevirt.io/vm": name, "app": f"app-{index // 3}"}
    vm = _object(KUBEVIRT, "VirtualMachine", name, namespace=namespace)
    vm["spec"] = {
        "runStrategy": "Always",
        "template": {"metadata": {"labels": marks}, "spec": spec},
    }
    vmi = _object(KUBEVIRT, "VirtualMachineInstance", name, marks, namespace)
    vmi["spec"] = spec
    vmi["status"] = {
        "phase": "Running",
        "nodeName": f"node-{place:04}",
        "machine": {"type": "pc-q35-rhel9.6.0"},
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None}
            for kind in ("Ready", "LiveMigratable", "AgentConnected")
        ],
        "guestOSInfo": {"name": "Debian GNU/Linux", "version": "12"},
        "interfaces": [{"name": "default", "ipAddress": "10.0.0.1"}],
    }
    return vm, vmi, _pod(vmi, marks, gib, int(cpu["cores"]))


def _pod(vmi: Object, marks: dict[str, str], gib: int, cores: int) -> Object:
    """Return the pod of a VMI; its uid is to be filled in."""
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    made = _object(
        "v1",
        "Pod",
        f"virt-launcher-{name}-x",
        {**marks, labels.POD_KIND: labels.LAUNCHER},
        namespace,
    )
    made["metadata"]["annotations"] = {labels.DOMAIN: name}
    selector = {labels.SCHEDULABLE: "true", labels.ARCH: "amd64"}
    requests = {"cpu": f"{cores}00m", "memory": f"{gib * 1024 + 250}Mi"}
    containers = [
        {
            "name": n,
            "image": "registry.example.org/kubevirt/virt-launcher:v1.8.4",
            "command": ["/usr/bin/virt-launcher-monitor", "--qemu-timeout", "300s"],
            "env": [{"name": f"SHARED_{n}", "value": "true"} for n in range(8)],
            "resources": {"requests": requests if n == "compute" else {"cpu": "10m"}},
        }
        for n in ("compute", "guest-console-log")
    ]
    made["spec"] = {
        "nodeName": vmi["status"]["nodeName"],
        "nodeSelector": selector,
        "containers": containers,
        "automountServiceAccountToken": False,
    }
    return made


def _object(
    version: str, kind: str, name: str, marks: dict[str, str] | None = None, namespace: str = ""
) -> Object:
    metadata: Object = {"name": name, "labels": marks or {}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}

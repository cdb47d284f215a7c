"""The objects of the sample clusters, as kubectl printed them, and requests made of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
INVENTORY = HERE / "inventory"
# Migrations as the API server holds them by the time virt-controller makes their target pods. The
# commands do not read them: a VM whose migration is under way is no candidate for another.
UNDER_WAY = HERE / "under_way"
WORKED_EXAMPLE = HERE / "worked_example"

Object = dict[str, Any]
_MACHINE_TYPE = "machine-type.node.kubevirt.io/"


def objects(*paths: Path) -> list[Object]:
    """Return all objects of some YAML files, or of all below some folders."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*.yaml")) if path.is_dir() else [path])
    ]
    return [obj for file in files for obj in yaml.safe_load_all(file.read_text("utf-8"))]


def find(found: list[Object], kind: str, name: str) -> Object:
    """Return a copy of an object; a pod is found by the VM it belongs to."""
    for obj in found:
        owners = obj["metadata"].get("ownerReferences") or [{}]
        called = owners[0].get("name") if kind == "Pod" else obj["metadata"]["name"]
        if obj["kind"] == kind and called == name:
            return copy.deepcopy(obj)
    raise LookupError(f"no {kind} {name} among the sample objects")


def started(vm: Object) -> Object:
    """Return the VMI that virt-controller makes of a VM's template."""
    template = copy.deepcopy(vm["spec"]["template"])
    metadata = {
        "name": vm["metadata"]["name"],
        "namespace": vm["metadata"]["namespace"],
        "labels": template["metadata"]["labels"],
        "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        "ownerReferences": [
            {
                "apiVersion": vm["apiVersion"],
                "blockOwnerDeletion": True,
                "controller": True,
                "kind": "VirtualMachine",
                "name": vm["metadata"]["name"],
                "uid": vm["metadata"]["uid"],
            }
        ],
    }
    return {
        "apiVersion": vm["apiVersion"],
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": template["spec"],
    }


def migration(namespace: str, name: str, target: str = "") -> Object:
    """Return the VMIM that a person creates for a VM, perhaps with a node of their choice."""
    spec: Object = {"vmiName": name}
    if target:
        spec["addedNodeSelector"] = {"kubernetes.io/hostname": target}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"generateName": f"{name}-", "namespace": namespace},
        "spec": spec,
    }


def target_pod(vmi: Object, source_pod: Object, vmim: Object, vendor: str) -> Object:
    """Return the target pod that virt-controller 1.8.4 posts where it derives no host-model CPU.

    That is so for a named model, for a guest that migrated before (its pod's selectors are
    copied), and for a guest that requires a feature (``migration.go``, ``targetPod``).
    """
    pod = copy.deepcopy(source_pod)
    pod.pop("status")
    metadata, spec = pod["metadata"], pod["spec"]
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        metadata.pop(key)
    metadata["labels"]["kubevirt.io/migrationJobUID"] = vmim["metadata"]["uid"]
    metadata["labels"]["kubevirt.io/nodeName"] = vmi["status"]["nodeName"]
    metadata["annotations"]["kubevirt.io/migrationJobName"] = vmim["metadata"]["name"]
    spec.pop("nodeName")
    kept = {k: v for k, v in spec["nodeSelector"].items() if not k.startswith(_MACHINE_TYPE)}
    kept[_MACHINE_TYPE + vmi["status"]["machine"]["type"]] = "true"
    kept[f"cpu-vendor.node.kubevirt.io/{vendor}"] = "true"
    spec["nodeSelector"] = dict(sorted(kept.items()))
    own = {"matchLabels": {"kubevirt.io/created-by": vmi["metadata"]["uid"]}}
    spec.setdefault("affinity", {})["podAntiAffinity"] = {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": own, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
    return pod

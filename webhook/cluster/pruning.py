"""Objects of a live cluster, cut down to the fields that decisions read.

What is left out: what managers wrote when, cloud-init with its passwords, disks and interfaces,
guest information, images of nodes. It would take most of the memory, and it changes all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from webhook.model.fields import Object

# True keeps a value whole; a mapping keeps these keys of a mapping; a list of one shape keeps
# these of each item; "annotations" keeps those that decisions know.
Shape: TypeAlias = Any

_KNOWN_ANNOTATIONS = ("migration-guard.io/", "kubevirt.io/")
_ANNOTATIONS = "annotations"

_METADATA: Mapping[str, Shape] = {
    "name": True,
    "namespace": True,
    "uid": True,
    "labels": True,
    "annotations": _ANNOTATIONS,
    "ownerReferences": [{"kind": True, "name": True, "uid": True}],
    "creationTimestamp": True,
    "deletionTimestamp": True,
}
_CLAIM: Mapping[str, Shape] = {"claimName": True, "name": True, "hotpluggable": True}
_VMI_SPEC: Mapping[str, Shape] = {
    "affinity": True,
    "architecture": True,
    "domain": {
        "cpu": True,
        "devices": {"gpus": [{"deviceName": True}], "hostDevices": [{"deviceName": True}]},
        "features": {"hyperv": True},
        "launchSecurity": True,
        "machine": True,
        "memory": True,
        "resources": True,
    },
    "evictionStrategy": True,
    "nodeSelector": True,
    "resourceClaims": [{"name": True}],
    "runtimeClassName": True,
    "schedulerName": True,
    "tolerations": True,
    "topologySpreadConstraints": [{"topologyKey": True}],
    "volumes": [
        {
            "name": True,
            "persistentVolumeClaim": _CLAIM,
            "dataVolume": _CLAIM,
            "ephemeral": {"persistentVolumeClaim": _CLAIM},
            "emptyDisk": {"capacity": True},
            "hostDisk": {"capacity": True},
        }
    ],
}
_CONDITION: Mapping[str, Shape] = {"type": True, "status": True, "reason": True, "message": True}
_CONTAINER: Mapping[str, Shape] = {
    "resources": {"requests": True, "limits": True},
    "restartPolicy": True,
}
# Kinds that are not named here are small, and nothing of them is kept as it is written.
_SHAPES: Mapping[str, Shape] = {
    "Node": {
        "metadata": _METADATA,
        "spec": {"taints": True, "unschedulable": True},
        "status": {
            "allocatable": True,
            "capacity": True,
            "conditions": [{"type": True, "status": True}],
        },
    },
    "Pod": {
        "metadata": _METADATA,
        "spec": {
            # Nothing else of an affinity is read from a pod.
            "affinity": {
                kind: {"requiredDuringSchedulingIgnoredDuringExecution": True}
                for kind in ("podAffinity", "podAntiAffinity")
            },
            "containers": [_CONTAINER],
            "initContainers": [_CONTAINER],
            "nodeName": True,
            "nodeSelector": True,
            "overhead": True,
            "resourceClaims": [{"name": True}],
            "schedulerName": True,
            "tolerations": True,
        },
        "status": {"phase": True},
    },
    "VirtualMachine": {
        "metadata": _METADATA,
        "spec": {
            "instancetype": {"name": True},
            "template": {
                "metadata": {"labels": True, "annotations": _ANNOTATIONS},
                "spec": _VMI_SPEC,
            },
        },
    },
    "VirtualMachineInstance": {
        "metadata": _METADATA,
        "spec": _VMI_SPEC,
        "status": {
            "conditions": [_CONDITION],
            "machine": True,
            "migratedVolumes": [{"volumeName": True, "sourcePVCInfo": {"capacity": True}}],
            "migrationMethod": True,
            "migrationState": {
                "abortRequested": True,
                "completed": True,
                "endTimestamp": True,
                "failed": True,
                "migrationUid": True,
                "mode": True,
                "sourceNode": True,
                "startTimestamp": True,
                "targetNode": True,
                "targetNodeDomainReadyTimestamp": True,
            },
            "nodeName": True,
            "phase": True,
            "topologyHints": True,
            "volumeStatus": [{"name": True, "hotplugVolume": True}],
        },
    },
    "VirtualMachineInstanceMigration": {
        "metadata": _METADATA,
        "spec": True,
        "status": {"phase": True},
    },
}


def prune(kind: str, obj: Object) -> Object:
    """Return an object with those fields alone that decisions read.

    A field of the wrong type is kept as it is, so that its reader can say what is wrong with it.
    """
    shape = _SHAPES.get(kind)
    if shape is None:
        return obj
    # apiVersion and kind lie outside the shapes: every reader needs them.
    return {**{k: obj[k] for k in ("apiVersion", "kind") if k in obj}, **_cut(obj, shape)}


def _cut(value: Any, shape: Shape) -> Any:
    if shape is True:
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            return value
        return [_cut(item, shape[0]) for item in value]
    if not isinstance(value, dict):
        return value
    if shape is _ANNOTATIONS:
        return {k: v for k, v in value.items() if k.startswith(_KNOWN_ANNOTATIONS)}
    return {key: _cut(value[key], shape[key]) for key in shape if key in value}

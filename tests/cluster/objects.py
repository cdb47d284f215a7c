"""Objects as the API server has them, for tests of reading."""

from __future__ import annotations

import json

from webhook.cluster.documents import Document
from webhook.cluster.inventory import snapshot_of


def node(name, labels=None, **status):
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubevirt.io/schedulable": "true"}
            | (labels or {}),
        },
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], **status},
    }


def vmi(name, namespace="default", uid="", node_name="node-1", phase="Running", **domain):
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}"},
        "spec": {"domain": domain},
        "status": {"phase": phase, "nodeName": node_name},
    }


def launcher(name, vmi_uid, node_name="node-1", phase="Running", cpu="1", **labels):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": vmi_uid,
                **labels,
            },
        },
        "spec": {
            "nodeName": node_name,
            "containers": [{"name": "compute", "resources": {"requests": {"cpu": cpu}}}],
        },
        "status": {"phase": phase},
    }


def pod(name, node_name="node-1", phase="Running", cpu="500m", labels=None):
    made = launcher(name, "", node_name, phase, cpu)
    made["metadata"]["labels"] = labels or {"app": name}
    return made


def other(api_version, kind, name, namespace=None, **parts):
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata |= parts.pop("metadata", {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def migration(name, uid="", phase="", namespace="default"):
    made = other(
        "kubevirt.io/v1",
        "VirtualMachineInstanceMigration",
        name,
        namespace,
        spec={"vmiName": "vm"},
        status={"phase": phase},
    )
    if uid:
        made["metadata"]["uid"] = uid
    return made


def inventory(*objects):
    """Read objects as if they stood in one file."""
    return snapshot_of(
        Document("facts.json", i, json.loads(json.dumps(obj))) for i, obj in enumerate(objects)
    )


def facts(*objects):
    """Read sound objects."""
    found = inventory(*objects)
    assert found.errors == ()
    return found.snapshot

"""A small cluster with the labels of real machines, and two kinds of reviews of its VMs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"
NAMESPACE = "default"
VMS = 64
# How many nodes of each kind; the one Skylake has VMs that no other node can take.
NODES = {"haswell": 4, "skylake": 1, "amd": 5}
FEATURE = "cpu-feature.node.kubevirt.io/"
REQUIRED = "host-model-required-features.node.kubevirt.io/"
HOST_MODEL = "host-model-cpu.node.kubevirt.io/"
MIGRATION_MODEL = "cpu-model-migration.node.kubevirt.io/"


def _read(path: str) -> Any:
    return json.loads((FIXTURES / path).read_text(encoding="utf-8"))


def _nodes() -> list[dict[str, Any]]:
    made = []
    for kind, count in NODES.items():
        for number in range(1, count + 1):
            node = _read(f"kubevirt/e-node-{kind}-01.json")
            name = f"{kind}-{number:02}"
            node["metadata"]["name"] = name
            node["metadata"]["labels"]["kubernetes.io/hostname"] = name
            made.append(node)
    return made


def _name(kind: str, number: int) -> str:
    return f"{kind}-vm-{number:03}"


def _uid(kind: str, number: int, what: int) -> str:
    return f"{what:08x}-{len(kind):04x}-4000-8000-{number:012x}"


def _vmi(kind: str, number: int) -> dict[str, Any]:
    vmi = _read("reviews-1.8.4/vmi-create-validating.json")["request"]["object"]
    vmi["metadata"] |= {
        "name": _name(kind, number),
        "namespace": NAMESPACE,
        "uid": _uid(kind, number, 1),
    }
    vmi["status"] = {
        "phase": "Running",
        "nodeName": f"{kind}-01",
        "machine": {"type": "pc-q35-rhel9.6.0"},
        "conditions": [{"type": "LiveMigratable", "status": "True"}],
    }
    return vmi


def _source_pod(vmi: dict[str, Any]) -> dict[str, Any]:
    pod = _read("reviews-1.8.4/source-pod-create-mutating-after.json")["request"]["object"]
    name = vmi["metadata"]["name"]
    pod["metadata"] |= {"name": f"virt-launcher-{name}", "namespace": NAMESPACE}
    pod["metadata"]["labels"] |= {"kubevirt.io/created-by": vmi["metadata"]["uid"]}
    pod["metadata"]["annotations"] |= {"kubevirt.io/domain": name}
    pod["spec"]["nodeName"] = vmi["status"]["nodeName"]
    pod["spec"]["nodeSelector"] = {
        "kubernetes.io/arch": "amd64",
        "kubevirt.io/schedulable": "true",
    }
    pod["status"] = {"phase": "Running"}
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _migration(vmi: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {
            "name": f"{vmi['metadata']['name']}-migration",
            "namespace": NAMESPACE,
            "uid": _uid("", number, 2),
        },
        "spec": {"vmiName": vmi["metadata"]["name"]},
    }


def inventory() -> list[dict[str, Any]]:
    """Return the cluster: nodes, VMs with their pods, and migrations of the Haswell VMs."""
    objects = _nodes()
    for kind in ("haswell", "skylake"):
        for number in range(VMS):
            vmi = _vmi(kind, number)
            objects += [vmi, _source_pod(vmi)]
            if kind == "haswell":
                objects.append(_migration(vmi, number))
    return objects


def target_pods() -> list[bytes]:
    """Return reviews of target pods from which KubeVirt has left out the CPU vendor."""
    captured = _read("reviews-1.8.4/target-pod-create-mutating-before.json")
    # The greater half of the pod is who wrote which field; cut so that the review has 12 KB.
    captured["request"]["object"]["metadata"]["managedFields"][0]["fieldsV1"].pop("f:spec")
    marks = next(n for n in _nodes() if n["metadata"]["name"] == "haswell-01")["metadata"]["labels"]
    selector = {"kubernetes.io/arch": "amd64", "kubevirt.io/schedulable": "true"}
    for key in marks:
        for ours, theirs in ((REQUIRED, FEATURE), (HOST_MODEL, MIGRATION_MODEL)):
            if key.startswith(ours):
                selector[theirs + key.removeprefix(ours)] = "true"
    made = []
    for number in range(VMS):
        vmi = _vmi("haswell", number)
        review = copy.deepcopy(captured)
        request = review["request"]
        request["uid"] = _uid("", number, 3)
        pod = request["object"]
        pod["metadata"]["labels"] |= {
            "kubevirt.io/created-by": vmi["metadata"]["uid"],
            "kubevirt.io/migrationJobUID": _uid("", number, 2),
        }
        pod["metadata"]["annotations"] |= {"kubevirt.io/domain": vmi["metadata"]["name"]}
        owner = pod["metadata"]["ownerReferences"][0]
        owner |= {"name": vmi["metadata"]["name"], "uid": vmi["metadata"]["uid"]}
        pod["spec"]["nodeSelector"] = selector
        made.append(_line(review))
    return made


def migrations() -> list[bytes]:
    """Return reviews of migrations that no other node can take."""
    captured = _read("reviews-1.8.4/vmim-create-by-admin-validating.json")
    made = []
    for number in range(VMS):
        review = copy.deepcopy(captured)
        review["request"]["uid"] = _uid("", number, 4)
        migration = review["request"]["object"]
        migration["metadata"].pop("annotations", None)
        migration["metadata"]["labels"] = {"kubevirt.io/vmi-name": _name("skylake", number)}
        migration["spec"] = {"vmiName": _name("skylake", number)}
        made.append(_line(review))
    return made


def _line(review: Any) -> bytes:
    return json.dumps(review, separators=(",", ":")).encode()

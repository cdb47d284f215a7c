"""A small cluster, and reviews of plain objects in it."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from tests.cluster.objects import facts
from webhook.model.snapshot import Snapshot
from webhook.policy.configuration import Configuration
from webhook.policy.loading import load
from webhook.review.admission import review_of_object
from webhook.review.deciding import both_passes
from webhook.review.decision import Decision
from webhook.review.memory import RefusalMemory

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
GROUP = "kubevirt.io/v1"
UPGRADE: dict[str, Any] = {
    "apiVersion": "harvesterhci.io/v1beta1",
    "kind": "Upgrade",
    "metadata": {
        "name": "u",
        "namespace": "harvester-system",
        "labels": {"harvesterhci.io/latestUpgrade": "true"},
    },
    "status": {"conditions": [{"type": "Completed", "status": "Unknown"}]},
}


def new_id() -> str:
    return str(uuid_utils.uuid7())


def node(name: str, host: str = "XYZ", vendor: str = "Intel", **labels: str) -> dict[str, Any]:
    """Make a KubeVirt node that can run its own host model, and the model 123."""
    marks = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubevirt.io/schedulable": "true",
        "cpu-model.node.kubevirt.io/123": "true",
    }
    if vendor:
        marks[f"cpu-vendor.node.kubevirt.io/{vendor}"] = "true"
    if host:
        marks[f"host-model-cpu.node.kubevirt.io/{host}"] = "true"
        marks[f"cpu-model-migration.node.kubevirt.io/{host}"] = "true"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**marks, **labels}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def vmi(name: str = "web", model: str = "host-model", at: str = "a", **spec: Any) -> dict[str, Any]:
    domain = {"cpu": {"model": model}, "memory": {"guest": "8Gi"}, **spec.pop("domain", {})}
    return {
        "apiVersion": GROUP,
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "prod", "uid": f"uid-{name}"},
        "spec": {"domain": domain, **spec},
        "status": {"phase": "Running", "nodeName": at},
    }


def vm(name: str = "web", model: str = "", **metadata: Any) -> dict[str, Any]:
    cpu = {"model": model} if model else {}
    return {
        "apiVersion": GROUP,
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "prod", **metadata},
        "spec": {"template": {"spec": {"domain": {"cpu": cpu}}}},
    }


def launcher(
    of: str = "web",
    at: str = "a",
    selector: dict[str, str] | None = None,
    *,
    migrated: bool = False,
) -> dict[str, Any]:
    labels = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": f"uid-{of}"}
    if migrated:
        labels["kubevirt.io/migrationJobUID"] = "an-earlier-one"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"virt-launcher-{of}", "namespace": "prod", "labels": labels},
        "spec": {
            "nodeName": at,
            "nodeSelector": selector or {},
            "containers": [{"name": "compute"}],
        },
        "status": {"phase": "Running"},
    }


def target_pod(of: str = "web", migration_uid: str = "uid-m", **selector: str) -> dict[str, Any]:
    """Make a target pod as virt-controller posts it: no name, no namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"virt-launcher-{of}-",
            "namespace": "prod",
            "labels": {
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": f"uid-{of}",
                "kubevirt.io/migrationJobUID": migration_uid,
            },
            "annotations": {"kubevirt.io/domain": of},
            "ownerReferences": [{"kind": "VirtualMachineInstance", "name": of, "uid": f"uid-{of}"}],
        },
        "spec": {"nodeSelector": {"kubevirt.io/schedulable": "true", **selector}},
    }


def migration(of: str = "web", uid: str = "", **notes: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"generateName": f"{of}-", "namespace": "prod"}
    if uid:
        metadata |= {"name": f"{of}-1", "uid": uid}
    if notes:
        metadata["annotations"] = notes
    return {
        "apiVersion": GROUP,
        "kind": "VirtualMachineInstanceMigration",
        "metadata": metadata,
        "spec": {"vmiName": of},
    }


def kubevirt(model: str = "", version: str = "v1.8.4", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": GROUP,
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {"configuration": {"cpuModel": model} if model else {}},
        "status": {"observedKubeVirtVersion": version, **status},
    }


def settings(text: str = "") -> Configuration:
    return load(text, "test")


class Cluster:
    """Facts, settings and memory, to ask in."""

    def __init__(self, *objects: dict[str, Any], configuration: str = "") -> None:
        self.facts: Snapshot = facts(*objects)
        self.configuration = settings(configuration)
        self.memory = RefusalMemory()
        self.after: Any = None

    def ask(
        self,
        obj: dict[str, Any],
        *,
        user: str = "alice",
        groups: tuple[str, ...] = (),
        old: dict[str, Any] | None = None,
        now: datetime = NOW,
        dry_run: bool = False,
        operation: str = "",
    ) -> Decision:
        """Ask both passes about an object; ``after`` is the object as it would be stored."""
        review = review_of_object(
            copy.deepcopy(obj),
            operation=operation or ("UPDATE" if old else "CREATE"),
            old=copy.deepcopy(old) if old else None,
            username=user,
            groups=groups,
            dry_run=dry_run,
        )
        decision, self.after = both_passes(
            review, self.facts, self.configuration, now, new_id, self.memory
        )
        return decision


def notes_of(obj: Any) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("annotations", {})
    return found

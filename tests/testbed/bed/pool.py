"""What one test has for itself on a test bed: a namespace, nodes, and virtual machines on them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from tests import captured_cluster
from tests.testbed.bed.api import NotInTime, Object, path
from tests.testbed.bed.conditions import has_condition, settled, unschedulable
from tests.testbed.bed.testbed import TestBed

KUBEVIRT = "kubevirt.io/v1"
POOL = "testbed/pool"
SILENT = "testbed/silent"
HOLD, FAIL = "testbed/migration-hold", "testbed/migration-fail"
WITHIN = 60.0
"""Seconds within which what a test waits for must come; nothing takes a tenth of that."""

_OLD, _COMMON = captured_cluster.OLD_MODELS, captured_cluster.FEATURES
CPUS: Mapping[str, tuple[str, str, list[str], list[str], list[str]]] = {
    "cascadelake": (
        *("Intel", "Cascadelake-Server", _OLD, _COMMON),
        captured_cluster.CASCADELAKE_FEATURES,
    ),
    "icelake": (
        *("Intel", "Icelake-Server", [*_OLD, "Cascadelake-Server"]),
        [*_COMMON, "avx512vnni", "vmx", "pku"],
        ["gfni", "md-clear", "sha-ni", "umip"],
    ),
    "milan": (
        *("AMD", "EPYC-Milan", captured_cluster.AMD_MODELS, captured_cluster.AMD_FEATURES),
        ["ibrs", "ssbd", "umip", "pku"],
    ),
}
"""Kinds of CPU: vendor, host model, usable models, features, features that host-model requires."""


def node_manifest(name: str, cpu: str = "cascadelake") -> Object:
    """Describe a node with the labels that virt-handler writes for a kind of CPU."""
    return captured_cluster.node(name, *CPUS[cpu])


def vm_manifest(
    name: str, model: str | None = None, features: Mapping[str, str] | None = None
) -> Object:
    """Describe a small VM that can be live-migrated.

    Args:
        name: Its name.
        model: The CPU model; None leaves it to the cluster.
        features: CPU features and their policies.
    """
    cpu: Object = {"cores": 2}
    if model is not None:
        cpu["model"] = model
    if features:
        cpu["features"] = [{"name": f, "policy": policy} for f, policy in features.items()]
    domain = {
        "cpu": cpu,
        "memory": {"guest": "1Gi"},
        "devices": {
            "disks": [{"name": "system", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}}],
        },
    }
    spec = {
        "evictionStrategy": "LiveMigrate",
        "domain": domain,
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "system", "containerDisk": {"image": "registry.test/cirros:1"}}],
    }
    return {
        "apiVersion": KUBEVIRT,
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


class Pool:
    """A namespace and nodes that no other test touches.

    Every VM made here gets a node selector on the pool's label, so that it stays within.

    Args:
        bed: The test bed; it must have KubeVirt where VMs are made.
        name: Of the namespace, of the label's value, and in front of the nodes' names.
    """

    def __init__(self, bed: TestBed, name: str) -> None:
        self.bed = bed
        self.api = bed.api
        self.name = name
        self.namespace = name
        self.nodes: list[str] = []

    def open(self) -> None:
        """Create the namespace, and wait until pods can be created there."""
        self.api.create(path("v1", "namespaces"), {"metadata": {"name": self.namespace}})
        self.api.wait_for(
            self.at("v1", "serviceaccounts"),
            lambda account: account["metadata"]["name"] == "default",
            WITHIN,
            "the namespace has its service account",
        )

    def close(self) -> None:
        """Remove everything; the namespace itself goes in the background."""
        if self.bed.kubevirt is not None:
            self.api.delete(self.at(KUBEVIRT, "virtualmachines"))
            self.api.delete(self.at(KUBEVIRT, "virtualmachineinstancemigrations"))
            self.api.delete(self.at(KUBEVIRT, "virtualmachineinstances"))
        self.api.delete(self.at("v1", "pods"), grace=0)
        with suppress(NotInTime):
            self.api.wait_until_empty(self.at("v1", "pods"), WITHIN / 4)
        for node in self.nodes:
            self.api.delete(path("v1", "nodes", name=node))
        self.api.delete(path("v1", "namespaces", name=self.namespace))

    def at(self, api_version: str, resource: str, name: str = "") -> str:
        """Return the path of a collection or an object in the namespace."""
        return path(api_version, resource, self.namespace, name)

    # Nodes

    def node(
        self,
        cpu: str = "cascadelake",
        *,
        labels: Mapping[str, str | None] | None = None,
        taints: Iterable[Object] = (),
        cordoned: bool = False,
        size: Mapping[str, str] | None = None,
    ) -> str:
        """Add a node and wait until it is ready.

        Args:
            cpu: A kind of CPU: a key of ``CPUS``.
            labels: Set beside those of the CPU, None removes one.
            taints: As in the node's spec.
            cordoned: Not for new pods.
            size: Amounts that differ from 16 CPUs, 64 GiB.

        Returns:
            Its name.
        """
        name = f"{self.name}-n{len(self.nodes) + 1}"
        obj = node_manifest(name, cpu)
        for key, value in {POOL: self.name, **(labels or {})}.items():
            if value is None:
                obj["metadata"]["labels"].pop(key, None)
            else:
                obj["metadata"]["labels"][key] = value
        amounts = {**obj["status"]["capacity"], **(size or {})}
        obj["status"] = {"capacity": amounts, "allocatable": amounts}
        obj["spec"] = {"taints": list(taints), "unschedulable": cordoned}
        self.create_nodes([obj])
        return name

    def create_nodes(self, objects: Iterable[Object]) -> None:
        """Create nodes as they are described, and wait until all are ready."""
        waiting = set()
        for obj in objects:
            self.api.create(path("v1", "nodes"), obj)
            self.nodes.append(obj["metadata"]["name"])
            waiting.add(obj["metadata"]["name"])
        for _, node in self.api.follow(path("v1", "nodes"), WITHIN):
            if settled(node):
                waiting.discard(node["metadata"]["name"])
            if not waiting:
                return
        raise NotInTime(f"nodes are not ready: {sorted(waiting)}")

    def wait_until_older(self, seconds: float) -> None:
        """Wait until every node of the pool has been there for so long."""
        known = (self.api.get(path("v1", "nodes", name=node)) for node in self.nodes)
        made = max(datetime.fromisoformat(n["metadata"]["creationTimestamp"]) for n in known)
        self.api.wait_until(
            lambda: (datetime.now(UTC) - made).total_seconds() > seconds,
            seconds + WITHIN,
            "the nodes are old enough",
        )

    def change_node(self, name: str, change: Any) -> None:
        """Merge a change into a node."""
        self.api.patch(path("v1", "nodes", name=name), change)

    def cordon(self, name: str, on: bool = True) -> None:
        """Cordon a node, or lift that."""
        self.change_node(name, {"spec": {"unschedulable": on}})

    # Virtual machines

    def vm(
        self,
        name: str,
        model: str | None = None,
        features: Mapping[str, str] | None = None,
        *,
        on: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """Create a VM and wait until it runs.

        Args:
            name, model, features: As of ``vm_manifest``.
            on: The node where it must start; "" leaves that to the scheduler.
            annotations: Of the VMI.

        Returns:
            The VMI.
        """
        obj = vm_manifest(name, model, features)
        if annotations:
            obj["spec"]["template"]["metadata"]["annotations"] = dict(annotations)
        return self.start(obj, on=on)

    def start(self, vm: Object, *, on: str = "") -> Object:
        """Create a VM (or VMI) as described, within the pool, and wait until it runs.

        Args:
            vm: The object; its template gets the pool's node selector.
            on: The node where it must start. The others are cordoned meanwhile, which leaves no
                trace in the VM.

        Returns:
            The VMI.
        """
        inner = vm["spec"]["template"]["spec"] if vm["kind"] == "VirtualMachine" else vm["spec"]
        inner["nodeSelector"] = {**inner.get("nodeSelector", {}), POOL: self.name}
        closed = [node for node in self.nodes if on and node != on and not self._cordoned(node)]
        for node in closed:
            self.cordon(node)
        try:
            resource = f"{vm['kind'].lower()}s"
            self.api.create(self.at(KUBEVIRT, resource), vm)
            running = self.wait_running(vm["metadata"]["name"])
        finally:
            for node in closed:
                self.cordon(node, on=False)
        assert not on or running["status"]["nodeName"] == on
        return running

    def _cordoned(self, node: str) -> bool:
        return bool(self.api.get(path("v1", "nodes", name=node))["spec"].get("unschedulable"))

    def vmi(self, name: str) -> Object:
        """Read a VMI."""
        return self.api.get(self.at(KUBEVIRT, "virtualmachineinstances", name))

    def wait_running(self, name: str) -> Object:
        """Wait until a VMI runs and can be migrated."""
        return self.api.wait_for(
            self.at(KUBEVIRT, "virtualmachineinstances"),
            lambda vmi: (
                vmi.get("status", {}).get("phase") == "Running"
                and has_condition(vmi, "LiveMigratable")
            ),
            WITHIN,
            f"{name} runs",
            fieldSelector=f"metadata.name={name}",
        )

    # Migrations

    def migration_manifest(
        self,
        vmi: str,
        added: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """Describe a migration; ``added`` is its ``addedNodeSelector``."""
        spec: Object = {"vmiName": vmi}
        if added:
            spec["addedNodeSelector"] = dict(added)
        return {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {"generateName": f"{vmi}-", "annotations": dict(annotations or {})},
            "spec": spec,
        }

    def migrate(
        self,
        vmi: str,
        added: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """Create a migration as the administrator; return its name.

        Raises:
            ApiError: It was refused.
        """
        made = self.api.create(
            self.at(KUBEVIRT, "virtualmachineinstancemigrations"),
            self.migration_manifest(vmi, added, annotations),
        )
        name: str = made["metadata"]["name"]
        return name

    def migration(self, name: str) -> Object:
        """Read a migration."""
        return self.api.get(self.at(KUBEVIRT, "virtualmachineinstancemigrations", name))

    def migrations(self, vmi: str) -> list[Object]:
        """Read all migrations of a VMI, the oldest first."""
        found = self.api.items(self.at(KUBEVIRT, "virtualmachineinstancemigrations"))
        mine = [obj for obj in found if obj["spec"]["vmiName"] == vmi]
        return sorted(mine, key=lambda obj: obj["metadata"]["creationTimestamp"])

    def wait_migration(self, name: str, *phases: str, seconds: float = WITHIN) -> Object:
        """Wait until a migration is in one of some phases; Succeeded unless named."""
        wanted = phases or ("Succeeded",)
        found = self.api.wait_for(
            self.at(KUBEVIRT, "virtualmachineinstancemigrations"),
            lambda obj: obj.get("status", {}).get("phase") in (*wanted, "Failed"),
            seconds,
            f"{name} is {' or '.join(wanted)}",
            fieldSelector=f"metadata.name={name}",
        )
        if found["status"]["phase"] not in wanted:
            raise NotInTime(f"{name} failed: {json.dumps(found['status'])}")
        return found

    def target_pod(self, migration: str) -> Object:
        """Wait for the target pod of a migration."""
        uid = self.migration(migration)["metadata"]["uid"]
        return self.api.wait_for(
            self.at("v1", "pods"),
            lambda pod: True,
            WITHIN,
            f"the target pod of {migration}",
            labelSelector=f"kubevirt.io/migrationJobUID={uid}",
        )

    def launcher_pods(self, vmi: str) -> list[Object]:
        """Read the virt-launcher pods of a VMI, the oldest first."""
        uid = self.vmi(vmi)["metadata"]["uid"]
        found = self.api.items(self.at("v1", "pods"), labelSelector=f"kubevirt.io/created-by={uid}")
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def wait_unschedulable(self, pod: str) -> Object:
        """Wait until the scheduler has found no node for a pod."""
        return self.api.wait_for(
            self.at("v1", "pods"),
            lambda obj: unschedulable(obj) is not None,
            WITHIN,
            f"{pod} is found unschedulable",
            fieldSelector=f"metadata.name={pod}",
        )

    # Events

    def events(self, kind: str, name: str) -> list[Object]:
        """Read the Events about an object, the oldest first."""
        found = self.api.items(
            self.at("v1", "events"),
            fieldSelector=f"involvedObject.kind={kind},involvedObject.name={name}",
        )
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def wait_event(self, kind: str, name: str, reason: str, seconds: float = WITHIN) -> Object:
        """Wait for an Event about an object."""
        return self.api.wait_for(
            self.at("v1", "events"),
            lambda event: event["reason"] == reason,
            seconds,
            f"an Event {reason} about {name}",
            fieldSelector=f"involvedObject.kind={kind},involvedObject.name={name}",
        )


def pool_name(test: str) -> str:
    """Make a name for the pool of a test: unique within the run, and recognised in logs."""
    short = "".join(c if c.isalnum() else "-" for c in test.lower())[:24].strip("-")
    return f"{short}-{time.monotonic_ns() // 1_000_000 % 1_000_000}"

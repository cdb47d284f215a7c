"""Facts as they come in, object by object, and the Snapshot made of them.

Objects are kept by kind and name; one that is given again replaces the former.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.kubevirt import KubeVirt
from webhook.model.node_groups import NodeGroups
from webhook.model.requests import derived_requests
from webhook.model.snapshot import Snapshot, repelling_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.model.migration import LauncherPod, Migration, MigrationPolicy, RuntimeClass
    from webhook.model.node import Node
    from webhook.model.snapshot import Preset
    from webhook.model.storage import Claim, PersistentVolume
    from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance

NAMESPACE_NAME = "kubernetes.io/metadata.name"
# Where KubeVirt's own manifests and Harvester put the CR.
USUAL_NAMESPACES = ("kubevirt", "harvester-system")
# Under this key stand the pods that are no virtual machine's: no uid looks like it.
OTHER_PODS = "pods of no virtual machine"
_ONE_POD = 1000


@dataclass(slots=True)
class Facts:
    """Everything known, by kind; the keys are ``namespace/name``, or the name alone.

    Attributes:
        presets: None stands for one that sets no CPU.
        migration_crds: Whether the served schema of a VMIM has ``addedNodeSelector``; None where
            the schema does not say.
        upgrades: Whether that Harvester upgrade is the latest and runs.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    vmis: dict[str, VirtualMachineInstance] = field(default_factory=dict)
    vms: dict[str, VirtualMachine] = field(default_factory=dict)
    migrations: dict[str, Migration] = field(default_factory=dict)
    pods: dict[str, LauncherPod] = field(default_factory=dict)
    kubevirts: dict[str, KubeVirt] = field(default_factory=dict)
    policies: dict[str, MigrationPolicy] = field(default_factory=dict)
    presets: dict[str, Preset | None] = field(default_factory=dict)
    runtime_classes: dict[str, RuntimeClass] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    volumes: dict[str, PersistentVolume] = field(default_factory=dict)
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    migration_crds: dict[str, bool | None] = field(default_factory=dict)
    upgrades: dict[str, bool] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        """Return what is known now, as one value that does not change any more."""
        kubevirt = self._kubevirt()
        pods = self._pods()
        return Snapshot(
            nodes=NodeGroups(self.nodes.values(), self._used(pods, kubevirt)),
            kubevirt=kubevirt,
            vmis=dict(self.vmis),
            vms=dict(self.vms),
            migrations=self._migrations(),
            pods=pods,
            policies=tuple(self.policies.values()),
            presets=tuple(p for p in self.presets.values() if p is not None),
            runtime_classes=dict(self.runtime_classes),
            claims=dict(self.claims),
            volumes=dict(self.volumes),
            namespaces=self._namespaces(),
            upgrading=any(self.upgrades.values()),
            # Pods of KubeVirt itself come along with `-l kubevirt.io`: they do not show that the
            # rest is there too.
            all_pods=any(labels.POD_KIND not in p.labels for p in pods.get(OTHER_PODS, ())),
            repelling=repelling_terms(pods),
        )

    def _kubevirt(self) -> KubeVirt:
        found = list(self.kubevirts.values())
        usual = [kv for kv in found if kv.namespaces[0] in USUAL_NAMESPACES]
        chosen = (usual or found or [KubeVirt()])[-1]
        served = next(iter(self.migration_crds.values()), None)
        return replace(chosen, added_node_selector_served=served)

    def _migrations(self) -> dict[str, Migration]:
        found: dict[str, Migration] = {}
        for key, migration in self.migrations.items():
            if migration.phase not in ("Succeeded", "Failed"):
                found[key] = migration
                if migration.uid:
                    found[migration.uid] = migration
        return found

    def _pods(self) -> dict[str, tuple[LauncherPod, ...]]:
        several: dict[str, list[LauncherPod]] = {}
        for pod in self.pods.values():
            if not pod.finished:
                several.setdefault(self._owner(pod), []).append(pod)
        return {uid: tuple(pods) for uid, pods in several.items()}

    def _owner(self, pod: LauncherPod) -> str:
        if not is_launcher(pod):
            return OTHER_PODS
        vmi = self.vmis.get(f"{pod.namespace}/{pod.vmi_name}")
        return pod.vmi_uid or (vmi.uid if vmi else "")

    def _used(
        self, pods: Mapping[str, tuple[LauncherPod, ...]], kubevirt: KubeVirt
    ) -> dict[str, dict[str, int]]:
        """Return by node what the pods there ask for, in thousandths of the base unit."""
        used: dict[str, dict[str, int]] = {}
        housed = set()
        for several in pods.values():
            for pod in several:
                if pod.node_name:
                    _take(used, pod.node_name, pod.requests)
                if is_launcher(pod):
                    housed.add((pod.node_name, pod.vmi_uid))
                    housed.add((pod.node_name, f"{pod.namespace}/{pod.vmi_name}"))
        for key, vmi in self.vmis.items():
            there = (vmi.node_name, vmi.uid) if vmi.uid else (vmi.node_name, key)
            if vmi.running and there not in housed:
                _take(used, vmi.node_name, derived_requests(vmi, kubevirt))
        return used

    def _namespaces(self) -> dict[str, Mapping[str, str]]:
        """Return the labels of the namespaces, the one that Kubernetes always sets included."""
        named: Iterable[str] = (
            *(vmi.namespace for vmi in self.vmis.values()),
            *(vm.namespace for vm in self.vms.values()),
            *(pod.namespace for pod in self.pods.values()),
            *(migration.namespace for migration in self.migrations.values()),
        )
        known: dict[str, Mapping[str, str]] = {n: {NAMESPACE_NAME: n} for n in set(named)}
        for name, marks in self.namespaces.items():
            known[name] = {**marks, NAMESPACE_NAME: name}
        return known


def is_launcher(pod: LauncherPod) -> bool:
    """Tell whether a pod runs a virtual machine."""
    return pod.labels.get(labels.POD_KIND) == labels.LAUNCHER


def _take(used: dict[str, dict[str, int]], node: str, requests: Mapping[str, int]) -> None:
    here = used.setdefault(node, {})
    for name, amount in requests.items():
        here[name] = here.get(name, 0) + amount
    here["pods"] = here.get("pods", 0) + _ONE_POD

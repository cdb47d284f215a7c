"""Facts as they come in, object by object, and the Snapshot made of them.

Objects are kept by kind and name; one that is given again replaces the former. A snapshot after a
few changes costs little more than these changes: what they do not touch is taken over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from webhook.cluster.pods import OTHER_PODS, PodsByVmi
from webhook.cluster.usage import Usage
from webhook.model import labels
from webhook.model.kubevirt import KubeVirt
from webhook.model.node_groups import NodeGroups
from webhook.model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.model.migration import LauncherPod, Migration, MigrationPolicy, RuntimeClass
    from webhook.model.node import Node
    from webhook.model.snapshot import Preset
    from webhook.model.storage import Claim, PersistentVolume
    from webhook.model.unreadable import Unreadable
    from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance

NAMESPACE_NAME = "kubernetes.io/metadata.name"
# Where KubeVirt's own manifests and Harvester put the CR.
USUAL_NAMESPACES = ("kubevirt", "harvester-system")
# A snapshot has these as they are kept here.
_COPIED = ("vmis", "vms", "runtime_classes", "claims", "volumes")
_NAMESPACED = ("vmis", "vms", "pods", "migrations")
_ABSENT = object()


@dataclass(slots=True)
class Facts:
    """Everything known, by kind; the keys are ``namespace/name``, or the name alone.

    To be changed by :meth:`put`, :meth:`drop` and :meth:`leave_out` alone.

    Attributes:
        presets: None stands for one that sets no CPU.
        migration_crds: Whether the served schema of a VMIM has ``addedNodeSelector``; None where
            the schema does not say.
        upgrades: Whether that Harvester upgrade is the latest and runs.
        unreadable: What is there and cannot be read, by the attribute that would hold it and key.
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
    unreadable: dict[tuple[str, str], Unreadable] = field(default_factory=dict)
    _usage: Usage = field(default_factory=Usage, repr=False)
    _by_vmi: PodsByVmi = field(default_factory=PodsByVmi, repr=False)
    _changed: set[str] = field(default_factory=set, repr=False)
    _parts: dict[str, Any] = field(default_factory=dict, repr=False)

    def put(self, store: str, key: str, value: object) -> bool:
        """Take up an object.

        Args:
            store: The attribute that holds its kind.
            key: Its key there.
            value: What is kept of it.

        Returns:
            Whether that changes anything.
        """
        kept = self.of(store)
        before = kept.get(key, _ABSENT)
        readable = self._note_readable(store, key)
        if store == "kubevirts":
            # Among several the last one given counts, so one that is repeated moves to the end.
            kept.pop(key, None)
        elif before == value:
            return readable
        kept[key] = value
        self._note(store, key, None if before is _ABSENT else before, value)
        return True

    def drop(self, store: str, key: str) -> bool:
        """Forget an object; say whether it was known."""
        readable = self._note_readable(store, key)
        before = self.of(store).pop(key, _ABSENT)
        if before is _ABSENT:
            return readable
        self._note(store, key, before, None)
        return True

    def leave_out(self, store: str, found: Unreadable) -> bool:
        """Forget an object that is there and cannot be read; say whether that changes anything."""
        if self.unreadable.get((store, found.key)) == found:
            return False
        self.drop(store, found.key)
        self.unreadable[store, found.key] = found
        self._changed.add("unreadable")
        return True

    def _note_readable(self, store: str, key: str) -> bool:
        if self.unreadable.pop((store, key), None) is None:
            return False
        self._changed.add("unreadable")
        return True

    def of(self, store: str) -> dict[str, Any]:
        """Return what is kept of a kind, by the attribute that holds it."""
        kept: dict[str, Any] = getattr(self, store)
        return kept

    def keys(self, store: str) -> set[str]:
        """Return the keys of all that is there of a kind, readable or not."""
        return {*self.of(store), *(key for kind, key in self.unreadable if kind == store)}

    def snapshot(self) -> Snapshot:
        """Return what is known now, as one value that does not change any more."""
        changed, parts = self._changed, self._parts
        if not parts:
            changed = set(_STORES)
        elif not changed:
            # The same value: what is remembered beside it stays with it.
            found: Snapshot = parts["whole"]
            return found
        # Should anything fail on the way, all is made anew the next time.
        self._changed, self._parts = set(), {}
        for store in changed.intersection(_COPIED):
            parts[store] = dict(self.of(store))
        if changed & {"kubevirts", "migration_crds"}:
            kubevirt = self._kubevirt()
            if kubevirt != parts.get("kubevirt"):
                parts["kubevirt"] = kubevirt
                self._usage.note_kubevirt()
        if "migrations" in changed:
            parts["migrations"] = self._migrations()
        if "policies" in changed:
            parts["policies"] = tuple(self.policies.values())
        if "presets" in changed:
            parts["presets"] = tuple(p for p in self.presets.values() if p is not None)
        if "unreadable" in changed:
            parts["unreadable"] = self._unreadable()
        if changed & {"upgrades", "unreadable"}:
            # One that cannot be read may be running.
            parts["upgrading"] = any(self.upgrades.values()) or "upgrades" in parts["unreadable"]
        if "namespaces" in changed:
            parts["namespaces"] = self._namespaces()
        if changed & {"pods", "vmis"}:
            parts["pods"] = pods = self._by_vmi.grouped()
            # Pods of KubeVirt itself come along with `-l kubevirt.io`: they do not show that the
            # rest is there too.
            parts["all_pods"] = any(
                labels.POD_KIND not in pod.labels for pod in pods.get(OTHER_PODS, ())
            )
            parts["repelling"] = self._by_vmi.repelling()
        used, on_nodes = self._usage.used(parts["kubevirt"])
        if "nodes" in changed:
            parts["nodes"] = NodeGroups(self.nodes.values(), used)
        elif on_nodes:
            parts["nodes"] = parts["nodes"].with_used(used, on_nodes)
        parts.pop("whole", None)
        parts["whole"] = found = Snapshot(**parts)
        self._parts = parts
        return found

    def _note(self, store: str, key: str, before: Any, after: Any) -> None:
        self._changed.add(store)
        if store == "pods":
            self._usage.note_pod(key, before, after)
            self._by_vmi.note(key, after, self._uid_of_vmi(after) if after is not None else "")
        elif store == "vmis":
            self._usage.note_vmi(key, before, after)
            uid = after.uid if after is not None else ""
            if before is None or before.uid != uid:
                self._by_vmi.note_vmi(key, uid)
        if store in _NAMESPACED:
            # Of a namespace that is not among the facts itself, its objects tell that it is there.
            known = self.namespaces if after is None else self._parts.get("namespaces", ())
            if (before if after is None else after).namespace not in known:
                self._changed.add("namespaces")

    def _uid_of_vmi(self, pod: LauncherPod) -> str:
        vmi = self.vmis.get(f"{pod.namespace}/{pod.vmi_name}")
        return vmi.uid if vmi is not None else ""

    def _kubevirt(self) -> KubeVirt:
        found = list(self.kubevirts.values())
        usual = [kv for kv in found if kv.namespaces[0] in USUAL_NAMESPACES]
        chosen = (usual or found or [KubeVirt()])[-1]
        served = next(iter(self.migration_crds.values()), None)
        return replace(chosen, added_node_selector_served=served)

    def _migrations(self) -> dict[str, Migration]:
        found: dict[str, Migration] = {}
        for key, migration in self.migrations.items():
            if not migration.finished:
                found[key] = migration
                if migration.uid:
                    found[migration.uid] = migration
        return found

    def _unreadable(self) -> dict[str, tuple[Unreadable, ...]]:
        found: dict[str, list[Unreadable]] = {}
        for (store, _), one in sorted(self.unreadable.items()):
            found.setdefault(store, []).append(one)
        return {store: tuple(several) for store, several in found.items()}

    def _namespaces(self) -> dict[str, Mapping[str, str]]:
        """Return the labels of the namespaces, the one that Kubernetes always sets included."""
        named: Iterable[str] = (
            obj.namespace for store in _NAMESPACED for obj in self.of(store).values()
        )
        known: dict[str, Mapping[str, str]] = {n: {NAMESPACE_NAME: n} for n in set(named)}
        for name, marks in self.namespaces.items():
            known[name] = {**marks, NAMESPACE_NAME: name}
        return known


_STORES = tuple(name for name in Facts.__slots__ if not name.startswith("_"))

"""The kinds of object that facts are read from, each with its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.fields import InvalidObject
from webhook.model.kubevirt import KubeVirt
from webhook.model.migration import NO_SOURCE, LauncherPod, Migration, MigrationPolicy, RuntimeClass
from webhook.model.node import Node
from webhook.model.node_affinity import label_selector
from webhook.model.pod_affinity import read_pod_terms
from webhook.model.rendering import requirements
from webhook.model.requests import derived_requests
from webhook.model.snapshot import Preset
from webhook.model.storage import Claim, PersistentVolume
from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.cluster.facts import Facts
    from webhook.cluster.sharing import Sharing
    from webhook.model.fields import Object

    Reader = Callable[[Facts, Sharing, str, Object], None]

MIGRATION_CRD = "virtualmachineinstancemigrations.kubevirt.io"
UPGRADE_NAMESPACE = "harvester-system"
LATEST_UPGRADE = "harvesterhci.io/latestUpgrade"


def group_and_kind(obj: Object) -> tuple[str, str]:
    """Return the API group ("" for the core group) and the kind of an object.

    Raises:
        InvalidObject: One of them is missing.
    """
    kind = fields.text(obj, "kind")
    version = fields.text(obj, "apiVersion")
    if not kind:
        raise InvalidObject("kind", "is missing; every Kubernetes object has one")
    if not version:
        raise InvalidObject("apiVersion", "is missing; every Kubernetes object has one")
    return version.rpartition("/")[0], kind


def name_of(obj: Object) -> str:
    """Return an object's name.

    Raises:
        InvalidObject: It has none.
    """
    name = fields.text(obj, "metadata", "name")
    if not name:
        raise InvalidObject("metadata.name", "is missing")
    return name


def add(facts: Facts, sharing: Sharing, obj: Object) -> tuple[str, str] | None:
    """Add an object to the facts.

    Returns:
        Its kind and its key (``namespace/name``, or the name alone); None where its kind is none
        that facts are read from.

    Raises:
        InvalidObject: The object has no kind, version or name, or a field has a wrong type.
    """
    group, kind = group_and_kind(obj)
    reader = READERS.get((group, kind))
    if reader is None:
        return None
    key = name_of(obj)
    if kind not in _CLUSTER_WIDE:
        key = f"{_namespace(obj)}/{key}"
    try:
        reader(facts, sharing, key, obj)
    except InvalidObject as error:
        raise InvalidObject(_whole_path(obj, error.path), error.message) from None
    return kind, key


# Where the readers of a part of an object begin to count.
_PARTS = (
    (),
    ("spec",),
    ("status",),
    ("spec", "affinity"),
    ("spec", "domain"),
    ("spec", "domain", "cpu"),
    ("spec", "domain", "features", "hyperv"),
    ("spec", "configuration"),
    ("spec", "configuration", "developerConfiguration"),
    ("spec", "template"),
    ("spec", "template", "spec"),
    ("spec", "template", "spec", "affinity"),
    ("spec", "template", "spec", "domain"),
    ("spec", "template", "spec", "domain", "cpu"),
    ("spec", "template", "spec", "domain", "features", "hyperv"),
)


def _whole_path(obj: Object, path: str) -> str:
    """Return the path from the object's root, of one that may count from a part of it."""
    steps = [step.partition("[")[0] for step in path.split(".")]
    for part in _PARTS:
        if _reaches(obj, (*part, *steps)):
            return ".".join((*part, path))
    return path


def _reaches(obj: object, steps: tuple[str, ...]) -> bool:
    here = obj
    for step in steps:
        if isinstance(here, list):
            return True
        if not isinstance(here, dict) or step not in here:
            return False
        here = here[step]
    return True


def _namespace(obj: Object) -> str:
    return fields.text(obj, "metadata", "namespace") or "default"


def _node(facts: Facts, sharing: Sharing, key: str, obj: Object) -> None:
    facts.nodes[key] = sharing.node(Node.from_object(obj))


def _vmi(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    vmi = VirtualMachineInstance.from_object(obj)
    # What is read only when the VMI is judged must be sound too: the file's reader is told now.
    requirements(vmi, NO_SOURCE, None, KubeVirt())
    derived_requests(vmi, KubeVirt())
    facts.vmis[key] = vmi


def _vm(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    vm = VirtualMachine.from_object(obj)
    vm.instance()
    facts.vms[key] = vm


def _migration(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.migrations[key] = Migration.from_object(obj)


def _pod(facts: Facts, sharing: Sharing, key: str, obj: Object) -> None:
    pod = LauncherPod.from_object(obj)
    read_pod_terms(pod.affinity, pod.namespace)
    facts.pods[key] = sharing.pod(pod)


def _kubevirt(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    # Among several the last one given counts, so a repeated one moves to the end.
    facts.kubevirts.pop(key, None)
    facts.kubevirts[key] = KubeVirt.from_object(obj)


def _policy(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.policies[key] = MigrationPolicy.from_object(obj)


def _preset(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    namespace, name = key.split("/")
    if fields.mapping(obj, "spec", "domain").get("cpu") is None:
        facts.presets[key] = None
        return
    at = ("spec", "selector")
    selector = label_selector(fields.mapping(obj, *at), *at)
    facts.presets[key] = Preset(namespace, name, selector)


def _runtime_class(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.runtime_classes[key] = RuntimeClass.from_object(obj)


def _claim(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.claims[key] = Claim.from_object(obj)


def _volume(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.volumes[key] = PersistentVolume.from_object(obj)


def _namespaces(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    facts.namespaces[key] = fields.labels(obj, "metadata", "labels")


def _definition(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    if key == MIGRATION_CRD:
        facts.migration_crds[key] = _serves_added_node_selector(obj)


def _serves_added_node_selector(definition: Object) -> bool | None:
    """Tell whether a served version of the VMIM has the field; None where no schema is told."""
    told: bool | None = None
    for version in fields.items(definition, "spec", "versions"):
        if fields.flag(version, "served") is False:
            continue
        at = ("schema", "openAPIV3Schema", "properties", "spec", "properties")
        known = fields.mapping(version, *at)
        if known:
            told = bool(told) or "addedNodeSelector" in known
    return told


def _upgrade(facts: Facts, _: Sharing, key: str, obj: Object) -> None:
    marks = fields.labels(obj, "metadata", "labels")
    completed = (
        fields.text(condition, "status")
        for condition in fields.items(obj, "status", "conditions")
        if condition.get("type") == "Completed"
    )
    latest = _namespace(obj) == UPGRADE_NAMESPACE and marks.get(LATEST_UPGRADE) == "true"
    facts.upgrades[key] = latest and next(completed, "") == "Unknown"


_CLUSTER_WIDE = frozenset(
    (
        "Node",
        "MigrationPolicy",
        "RuntimeClass",
        "PersistentVolume",
        "Namespace",
        "CustomResourceDefinition",
    )
)
READERS: Mapping[tuple[str, str], Reader] = {
    ("", "Node"): _node,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "PersistentVolume"): _volume,
    ("", "Namespace"): _namespaces,
    ("kubevirt.io", "VirtualMachineInstance"): _vmi,
    ("kubevirt.io", "VirtualMachine"): _vm,
    ("kubevirt.io", "VirtualMachineInstanceMigration"): _migration,
    ("kubevirt.io", "VirtualMachineInstancePreset"): _preset,
    ("kubevirt.io", "KubeVirt"): _kubevirt,
    ("migrations.kubevirt.io", "MigrationPolicy"): _policy,
    ("node.k8s.io", "RuntimeClass"): _runtime_class,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("harvesterhci.io", "Upgrade"): _upgrade,
}

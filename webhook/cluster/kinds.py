"""The kinds of object that facts are read from, each with its reader."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from webhook.model import fields, labels
from webhook.model.fields import InvalidObject
from webhook.model.kubevirt import KubeVirt
from webhook.model.limits import TooLarge
from webhook.model.migration import NO_SOURCE, LauncherPod, Migration, MigrationPolicy, RuntimeClass
from webhook.model.node import Node
from webhook.model.node_affinity import label_selector
from webhook.model.pod_affinity import read_pod_terms
from webhook.model.rendering import requirements
from webhook.model.requests import derived_requests
from webhook.model.snapshot import Preset
from webhook.model.storage import Claim, PersistentVolume
from webhook.model.unreadable import Unreadable
from webhook.model.virtual_machine import VirtualMachine, VirtualMachineInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.cluster.facts import Facts
    from webhook.cluster.sharing import Sharing
    from webhook.model.fields import Object

    Reader = Callable[[Sharing, str, Object], object]

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
    group_kind = group_and_kind(obj)
    kind = KINDS.get(group_kind)
    if kind is None:
        return None
    key = ""
    try:
        key = key_of(kind, obj)
        if not kind.only or key == kind.only:
            facts.put(kind.store, key, read(kind, sharing, key, obj))
    except InvalidObject as error:
        facts.leave_out(kind.store, unreadable(obj, key, str(error)))
        raise
    return group_kind[1], key


def key_of(kind: Kind, obj: Object) -> str:
    """Return the key of an object of a kind: ``namespace/name``, or the name alone.

    Raises:
        InvalidObject: It has no name.
    """
    name = name_of(obj)
    return f"{_namespace(obj)}/{name}" if kind.namespaced else name


def read(kind: Kind, sharing: Sharing, key: str, obj: Object) -> object:
    """Return what the facts keep of an object.

    Raises:
        InvalidObject: A field has a wrong type; its whole path is named.
    """
    try:
        return kind.read(sharing, key, obj)
    except InvalidObject as error:
        raise InvalidObject(_whole_path(obj, error.path), error.message) from None


def unreadable(obj: Object, key: str, why: str) -> Unreadable:
    """Return what is known of an object that cannot be read.

    Args:
        obj: The object.
        key: Its key, "" where not even that can be read.
        why: What is wrong with it.
    """
    marks: Mapping[str, str] = {}
    with suppress(InvalidObject):
        marks = fields.labels(obj, "metadata", "labels")
    return Unreadable(key, why, marks.get(labels.CREATED_BY, ""))


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


def _node(sharing: Sharing, _: str, obj: Object) -> Node:
    return sharing.node(Node.from_object(obj))


def _vmi(_: Sharing, __: str, obj: Object) -> VirtualMachineInstance:
    vmi = VirtualMachineInstance.from_object(obj)
    # What is read only when the VMI is judged must be sound too: the file's reader is told now.
    # One that demands too much to be judged is sound, and whoever asks about it is told why.
    with suppress(TooLarge):
        requirements(vmi, NO_SOURCE, None, KubeVirt())
    derived_requests(vmi, KubeVirt())
    return vmi


def _vm(_: Sharing, __: str, obj: Object) -> VirtualMachine:
    vm = VirtualMachine.from_object(obj)
    vm.instance()
    return vm


def _pod(sharing: Sharing, _: str, obj: Object) -> LauncherPod:
    pod = LauncherPod.from_object(obj)
    read_pod_terms(pod.affinity, pod.namespace)
    return sharing.pod(pod)


def _preset(_: Sharing, key: str, obj: Object) -> Preset | None:
    namespace, name = key.split("/")
    if fields.mapping(obj, "spec", "domain").get("cpu") is None:
        return None
    at = ("spec", "selector")
    return Preset(namespace, name, label_selector(fields.mapping(obj, *at), *at))


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


def _upgrade(_: Sharing, __: str, obj: Object) -> bool:
    marks = fields.labels(obj, "metadata", "labels")
    completed = (
        fields.text(condition, "status")
        for condition in fields.items(obj, "status", "conditions")
        if condition.get("type") == "Completed"
    )
    latest = _namespace(obj) == UPGRADE_NAMESPACE and marks.get(LATEST_UPGRADE) == "true"
    return latest and next(completed, "") == "Unknown"


class Kind(NamedTuple):
    """How facts are read from a kind of object.

    Attributes:
        store: The attribute of :class:`Facts` that keeps it.
        read: Makes what is kept of an object and its key.
        namespaced: Whether such objects live in namespaces.
        only: The one name that counts; "" where all do.
    """

    store: str
    read: Reader
    namespaced: bool = True
    only: str = ""


KINDS: Mapping[tuple[str, str], Kind] = {
    ("", "Node"): Kind("nodes", _node, namespaced=False),
    ("", "Pod"): Kind("pods", _pod),
    ("", "PersistentVolumeClaim"): Kind("claims", lambda _s, _k, obj: Claim.from_object(obj)),
    ("", "PersistentVolume"): Kind(
        "volumes", lambda _s, _k, obj: PersistentVolume.from_object(obj), namespaced=False
    ),
    ("", "Namespace"): Kind(
        "namespaces",
        lambda _s, _k, obj: fields.labels(obj, "metadata", "labels"),
        namespaced=False,
    ),
    ("kubevirt.io", "VirtualMachineInstance"): Kind("vmis", _vmi),
    ("kubevirt.io", "VirtualMachine"): Kind("vms", _vm),
    ("kubevirt.io", "VirtualMachineInstanceMigration"): Kind(
        "migrations", lambda _s, _k, obj: Migration.from_object(obj)
    ),
    ("kubevirt.io", "VirtualMachineInstancePreset"): Kind("presets", _preset),
    ("kubevirt.io", "KubeVirt"): Kind("kubevirts", lambda _s, _k, obj: KubeVirt.from_object(obj)),
    ("migrations.kubevirt.io", "MigrationPolicy"): Kind(
        "policies", lambda _s, _k, obj: MigrationPolicy.from_object(obj), namespaced=False
    ),
    ("node.k8s.io", "RuntimeClass"): Kind(
        "runtime_classes", lambda _s, _k, obj: RuntimeClass.from_object(obj), namespaced=False
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Kind(
        "migration_crds",
        lambda _s, _k, obj: _serves_added_node_selector(obj),
        namespaced=False,
        only=MIGRATION_CRD,
    ),
    ("harvesterhci.io", "Upgrade"): Kind("upgrades", _upgrade),
}

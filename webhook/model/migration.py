"""VirtualMachineInstanceMigrations, virt-launcher pods, and what else a migration rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields, labels
from webhook.model.node import resources
from webhook.model.tolerations import Toleration, read_tolerations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.cpu import HostCpu
    from webhook.model.fields import Object
    from webhook.model.node import Node


@dataclass(frozen=True, slots=True)
class Migration:
    """A VMIM.

    Attributes:
        created: ``metadata.creationTimestamp`` as it is written, "" before it has one.
    """

    namespace: str
    name: str
    uid: str
    vmi_name: str
    added_node_selector: Mapping[str, str]
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    decentralized: bool
    phase: str
    deleting: bool = False
    created: str = ""

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def vmi_key(self) -> str:
        """``namespace/name`` of the VMI that is to move."""
        return f"{self.namespace}/{self.vmi_name}"

    @property
    def finished(self) -> bool:
        """Whether the migration has ended, well or not."""
        return self.phase in ("Succeeded", "Failed")

    @classmethod
    def from_object(cls, obj: Object) -> Migration:
        """Read a kubevirt.io VirtualMachineInstanceMigration of any served version.

        Raises:
            InvalidObject: A field has a type that a VMIM cannot have.
        """
        spec = fields.mapping(obj, "spec")
        return cls(
            namespace=fields.text(obj, "metadata", "namespace") or "default",
            name=fields.text(obj, "metadata", "name")
            or fields.text(obj, "metadata", "generateName"),
            uid=fields.text(obj, "metadata", "uid"),
            vmi_name=fields.text(obj, "spec", "vmiName"),
            added_node_selector=fields.labels(obj, "spec", "addedNodeSelector"),
            annotations=fields.labels(obj, "metadata", "annotations"),
            labels=fields.labels(obj, "metadata", "labels"),
            decentralized=spec.get("sendTo") is not None or spec.get("receive") is not None,
            phase=fields.text(obj, "status", "phase"),
            deleting=bool(fields.text(obj, "metadata", "deletionTimestamp")),
            created=fields.text(obj, "metadata", "creationTimestamp"),
        )


@dataclass(frozen=True, slots=True)
class LauncherPod:
    """A virt-launcher pod.

    Attributes:
        requests: What the scheduler counts, in thousandths of the base unit.
        created: ``metadata.creationTimestamp`` as it is written (RFC 3339 sorts by time).
    """

    namespace: str
    name: str
    uid: str
    vmi_uid: str
    vmi_name: str
    node_name: str
    migration_uid: str
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    requests: Mapping[str, int]
    scheduler: str
    labels: Mapping[str, str]
    affinity: Object
    resource_claims: bool
    created: str
    finished: bool

    @property
    def migrated_here(self) -> bool:
        """Whether this pod was the target of a migration: its selectors are remembered ones."""
        return bool(self.migration_uid)

    @classmethod
    def from_object(cls, obj: Object, *, counted: bool = True) -> LauncherPod:
        """Read a v1 Pod.

        Args:
            obj: The pod.
            counted: Whether its requests are read: not of one that takes no room yet.

        Raises:
            InvalidObject: A field has a type or a value that a Pod cannot have.
        """
        spec = fields.mapping(obj, "spec")
        marks = fields.labels(obj, "metadata", "labels")
        notes = fields.labels(obj, "metadata", "annotations")
        owners = fields.items(obj, "metadata", "ownerReferences")
        owner = next((o for o in owners if o.get("kind") == "VirtualMachineInstance"), fields.EMPTY)
        return cls(
            namespace=fields.text(obj, "metadata", "namespace") or "default",
            name=fields.text(obj, "metadata", "name")
            or fields.text(obj, "metadata", "generateName"),
            uid=fields.text(obj, "metadata", "uid"),
            vmi_uid=marks.get(labels.CREATED_BY, "") or fields.text(owner, "uid"),
            vmi_name=notes.get(labels.DOMAIN, "") or fields.text(owner, "name"),
            node_name=fields.text(spec, "nodeName"),
            migration_uid=marks.get(labels.MIGRATION_UID, ""),
            node_selector=fields.labels(spec, "nodeSelector"),
            tolerations=read_tolerations(spec.get("tolerations"), "spec", "tolerations"),
            requests=pod_requests(spec) if counted else fields.EMPTY,
            scheduler=fields.text(spec, "schedulerName"),
            labels=marks,
            affinity=fields.mapping(spec, "affinity"),
            resource_claims=bool(spec.get("resourceClaims")),
            created=fields.text(obj, "metadata", "creationTimestamp"),
            finished=fields.text(obj, "status", "phase") in ("Succeeded", "Failed"),
        )


def pod_requests(spec: Object) -> dict[str, int]:
    """Return what a pod asks of a node, as the scheduler counts it, in thousandths.

    Containers and side cars (init containers that restart always) add up; an ordinary init
    container counts alone beside the side cars started before it; overhead comes on top. A limit
    without a request is the request. Source: ``component-helpers/resource/helpers.go``
    (PodRequests).
    """
    total: dict[str, int] = {}
    for container in fields.items(spec, "containers"):
        _add(total, _requests(container))
    side_cars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in fields.items(spec, "initContainers"):
        asked = dict(_requests(container))
        if fields.text(container, "restartPolicy") == "Always":
            _add(side_cars, asked)
            asked = dict(side_cars)
        else:
            _add(asked, side_cars)
        for name, amount in asked.items():
            peak[name] = max(peak.get(name, 0), amount)
    _add(total, side_cars)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    _add(total, resources(spec, "overhead"))
    return total


def _requests(container: Object) -> dict[str, int]:
    asked = dict(resources(container, "resources", "limits"))
    asked.update(resources(container, "resources", "requests"))
    return asked


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


@dataclass(frozen=True, slots=True)
class Source:
    """Where a VMI runs.

    Attributes:
        node_name: ``status.nodeName`` of the VMI, "" where it has none.
        node: That node, None where it is not among the facts.
        pod: The newest pod of the VMI there, None where it is not among the facts.
        cpu: The node's CPU, where that was read from its labels already.
    """

    node_name: str = ""
    node: Node | None = None
    pod: LauncherPod | None = None
    cpu: HostCpu | None = None


NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class RuntimeClass:
    """What a RuntimeClass adds to each of its pods (``scheduling`` and ``overhead``)."""

    name: str
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]

    @classmethod
    def from_object(cls, obj: Object) -> RuntimeClass:
        """Read a node.k8s.io/v1 RuntimeClass."""
        scheduling = fields.mapping(obj, "scheduling")
        return cls(
            name=fields.text(obj, "metadata", "name"),
            node_selector=fields.labels(scheduling, "nodeSelector"),
            tolerations=read_tolerations(
                scheduling.get("tolerations"), "scheduling", "tolerations"
            ),
        )


@dataclass(frozen=True, slots=True)
class MigrationPolicy:
    """A migrations.kubevirt.io MigrationPolicy; selectors None means it matches nothing."""

    name: str
    vmi_selector: Mapping[str, str] | None
    namespace_selector: Mapping[str, str] | None
    spec: Object

    @classmethod
    def from_object(cls, obj: Object) -> MigrationPolicy:
        """Read a MigrationPolicy.

        Raises:
            InvalidObject: A field has a type that the kind does not allow.
        """
        selectors = fields.mapping(obj, "spec").get("selectors")
        none = selectors is None
        at = ("spec", "selectors")
        return cls(
            name=fields.text(obj, "metadata", "name"),
            vmi_selector=None
            if none
            else fields.labels(obj, *at, "virtualMachineInstanceSelector"),
            namespace_selector=None if none else fields.labels(obj, *at, "namespaceSelector"),
            spec=fields.mapping(obj, "spec"),
        )

    def score(
        self, vmi_labels: Mapping[str, str], namespace_labels: Mapping[str, str]
    ) -> tuple[int, int] | None:
        """Return how closely the policy matches: keys in all, VMI keys; None where it does not.

        Source: KubeVirt ``pkg/virt-controller/watch/migration/migrationpolicy.go``.
        """
        if self.vmi_selector is None or self.namespace_selector is None:
            return None
        if not self.vmi_selector.items() <= vmi_labels.items():
            return None
        if not self.namespace_selector.items() <= namespace_labels.items():
            return None
        keys = len(self.vmi_selector)
        return keys + len(self.namespace_selector), keys


def matching_policy(
    policies: tuple[MigrationPolicy, ...],
    vmi_labels: Mapping[str, str],
    namespace_labels: Mapping[str, str],
) -> MigrationPolicy | None:
    """Return the policy that governs a VMI's migrations.

    The most keys win, then the most VMI keys, then the first name.
    """
    found = [
        ((-score[0], -score[1], policy.name), policy)
        for policy in policies
        if (score := policy.score(vmi_labels, namespace_labels)) is not None
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None

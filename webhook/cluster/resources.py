"""The kinds that are read from a live cluster: where they are, and whether they are served."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from webhook.cluster.errors import RequestFailed
from webhook.cluster.kinds import KINDS, MIGRATION_CRD, UPGRADE_NAMESPACE
from webhook.model import fields, labels
from webhook.model.fields import InvalidObject

if TYPE_CHECKING:
    from webhook.cluster.connection import Connection
    from webhook.cluster.kinds import Kind

# Until a server that does not say what it serves counts as silent. What is known of a kind that is
# not installed grows old meanwhile, as it does while a watch is silent (GRACE in reflector.py).
ANSWER_SECONDS = 5.0

_LAUNCHERS = f"{labels.POD_KIND}={labels.LAUNCHER}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server serves it.

    Attributes:
        name: The plural, as in its path and in roles.
        group: The API group, "" for the core group.
        kind: As in the object.
        versions: Those that are understood, the best first.
        namespace: The only one that is read; "" for all.
        label_selector: The only ones that are read; "" for all.
        field_selector: Likewise.
        needed: Whether decisions rest on it. Of one that is not, the facts say nothing, and
            something else stands in.
    """

    name: str
    group: str
    kind: str
    versions: tuple[str, ...] = ("v1",)
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    needed: bool = True

    @property
    def facts(self) -> Kind:
        """How facts are read from it."""
        return KINDS[self.group, self.kind]

    def path(self, version: str) -> str:
        """Return the path at which it is listed and watched."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        return (
            f"{root}/namespaces/{self.namespace}/{self.name}"
            if self.namespace
            else (f"{root}/{self.name}")
        )

    def selectors(self, *, all_pods: bool) -> dict[str, str]:
        """Return the part of a query that says which objects are wanted."""
        found = {}
        if self.label_selector and not (all_pods and self.kind == "Pod"):
            found["labelSelector"] = self.label_selector
        if self.field_selector:
            found["fieldSelector"] = self.field_selector
        return found


# In this order they are read at once; those that others rest on come first.
RESOURCES = (
    Resource("kubevirts", "kubevirt.io", "KubeVirt", ("v1", "v1alpha3")),
    Resource("nodes", "", "Node"),
    Resource("namespaces", "", "Namespace"),
    Resource(
        "virtualmachineinstances", "kubevirt.io", "VirtualMachineInstance", ("v1", "v1alpha3")
    ),
    Resource("pods", "", "Pod", label_selector=_LAUNCHERS),
    Resource(
        "virtualmachineinstancemigrations",
        "kubevirt.io",
        "VirtualMachineInstanceMigration",
        ("v1", "v1alpha3"),
    ),
    Resource("virtualmachines", "kubevirt.io", "VirtualMachine", ("v1", "v1alpha3")),
    Resource("migrationpolicies", "migrations.kubevirt.io", "MigrationPolicy", ("v1alpha1",)),
    Resource(
        "virtualmachineinstancepresets",
        "kubevirt.io",
        "VirtualMachineInstancePreset",
        ("v1", "v1alpha3"),
    ),
    Resource("runtimeclasses", "node.k8s.io", "RuntimeClass"),
    Resource("persistentvolumeclaims", "", "PersistentVolumeClaim"),
    Resource("persistentvolumes", "", "PersistentVolume"),
    Resource("upgrades", "harvesterhci.io", "Upgrade", ("v1beta1",), namespace=UPGRADE_NAMESPACE),
    Resource(
        "customresourcedefinitions",
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        field_selector=f"metadata.name={MIGRATION_CRD}",
        # KubeVirt's version says nearly as much.
        needed=False,
    ),
)


def served_version(connection: Connection, resource: Resource) -> str | None:
    """Return the version in which a kind is served, None where it is not installed.

    A version that is not among those understood is taken where there is no other.

    Raises:
        RequestFailed: The API server does not say.
    """
    if not resource.group:
        return resource.versions[0]
    try:
        found = connection.get(f"/apis/{resource.group}", read_seconds=ANSWER_SECONDS)
        offered = [fields.text(v, "version") for v in fields.items(found, "versions")]
        known = [version for version in resource.versions if version in offered]
        for version in (*known, *(v for v in offered if v not in known)):
            listed = connection.get(
                f"/apis/{resource.group}/{version}", read_seconds=ANSWER_SECONDS
            )
            if any(r.get("name") == resource.name for r in fields.items(listed, "resources")):
                return version
    except RequestFailed as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        if error.status == HTTPStatus.FORBIDDEN:
            # Discovery can be closed; whether the kind is there shows when it is read.
            return resource.versions[0]
        raise
    except InvalidObject as error:
        raise RequestFailed(0, f"{connection.host}/apis/{resource.group}: {error}") from error
    return None

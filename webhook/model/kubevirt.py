"""KubeVirt itself: its version, its configuration, and what changed in which version."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from webhook.model import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.fields import Object

_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class Version(NamedTuple):
    """A KubeVirt version; compares as numbers."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        """Return the version as KubeVirt tags it, ``v1.8.4``."""
        return f"v{self.major}.{self.minor}.{self.patch}"


NEWEST = Version(1, 9, 0)


class Change(NamedTuple):
    """Something that KubeVirt does since a version.

    ``backports`` are the older lines that got it too, each with its first version.
    """

    since: Version
    backports: tuple[Version, ...]
    source: str

    def holds(self, version: Version) -> bool:
        """Tell whether a version has it."""
        if version >= self.since:
            return True
        return any(version[:2] == line[:2] and version >= line for line in self.backports)


# What bears on where a pod can go or how long a migration may take, and since when. 1.7.0 was cut
# before the vendor guard, hence its own line there.
ADDED_NODE_SELECTOR = Change(Version(1, 6, 0), (), "kubevirt PR 12725")
VENDOR_GUARD = Change(Version(1, 7, 1), (Version(1, 6, 4),), "kubevirt PR 16060")
MACHINE_TYPE_SELECTOR = Change(Version(1, 5, 1), (), "nodeselectorrenderer.go")
TIMEOUT_150_PER_GIB = Change(Version(1, 4, 0), (), "kubevirt PR 12848")
WORKLOAD_DISRUPTION = Change(Version(1, 5, 0), (), "virt-config.go")


def parse_version(tag: str) -> Version | None:
    """Return the version that an image tag starts with, None where it starts with none.

    Harvester's ``1.7.0-150700.3.21.1`` is 1.7.0, not a pre-release of it.
    """
    found = _TAG.match(tag)
    return Version(*(int(part) for part in found.groups())) if found else None


@dataclass(frozen=True, slots=True)
class KubeVirt:
    """The KubeVirt CR, or its defaults where there is none.

    Attributes:
        known: Whether a CR is among the facts.
        namespaces: Where its service accounts live.
        version: The version that runs; :data:`NEWEST` where the status does not say
            (``version_known`` is then False).
        target_version: During a rollout the version to come, else the same.
        rolling_out: Observed and target version are both set and differ.
        gates: The feature gates that are on.
        migrations: ``spec.configuration.migrations`` as it is written.
    """

    known: bool = False
    namespaces: tuple[str, ...] = ("kubevirt", "harvester-system")
    name: str = "kubevirt"
    version: Version = NEWEST
    version_known: bool = False
    target_version: Version = NEWEST
    rolling_out: bool = False
    cpu_model: str = ""
    default_architecture: str = "amd64"
    gates: frozenset[str] = frozenset()
    node_selectors: Mapping[str, str] = field(default_factory=dict)
    node_drain_taint: str = "kubevirt.io/drain"
    default_runtime_class: str = ""
    eviction_strategy: str = ""
    scheduler: str = ""
    memory_overcommit: int = 100
    cpu_allocation_ratio: int = 10
    migrations: Object = field(default_factory=dict)
    added_node_selector_served: bool | None = None

    @classmethod
    def from_object(cls, obj: Object) -> KubeVirt:
        """Read a kubevirt.io KubeVirt.

        Raises:
            InvalidObject: A field has a type that the kind does not allow.
        """
        configuration = fields.mapping(obj, "spec", "configuration")
        developer = fields.mapping(configuration, "developerConfiguration")
        observed = fields.text(obj, "status", "observedKubeVirtVersion")
        target = fields.text(obj, "status", "targetKubeVirtVersion")
        version = parse_version(observed)
        disabled = fields.strings(developer, "disabledFeatureGates")
        return cls(
            known=True,
            namespaces=(fields.text(obj, "metadata", "namespace") or "kubevirt",),
            name=fields.text(obj, "metadata", "name") or "kubevirt",
            version=version or NEWEST,
            version_known=version is not None,
            target_version=parse_version(target) or version or NEWEST,
            rolling_out=bool(observed and target and observed != target),
            cpu_model=fields.text(configuration, "cpuModel"),
            default_architecture=fields.text(obj, "status", "defaultArchitecture") or "amd64",
            gates=frozenset(fields.strings(developer, "featureGates")) - frozenset(disabled),
            node_selectors=fields.labels(developer, "nodeSelectors"),
            node_drain_taint=fields.text(configuration, "migrations", "nodeDrainTaintKey")
            or "kubevirt.io/drain",
            default_runtime_class=fields.text(configuration, "defaultRuntimeClass"),
            eviction_strategy=fields.text(configuration, "evictionStrategy"),
            scheduler=fields.text(configuration, "schedulerName"),
            memory_overcommit=fields.integer(developer, "memoryOvercommit") or 100,
            cpu_allocation_ratio=fields.integer(developer, "cpuAllocationRatio") or 10,
            migrations=fields.mapping(configuration, "migrations"),
        )

    @property
    def versions(self) -> tuple[Version, ...]:
        """The versions that may act: two of them during a rollout."""
        return (self.version, self.target_version) if self.rolling_out else (self.version,)

    def does(self, change: Change, version: Version | None = None) -> bool:
        """Tell whether this KubeVirt, or one of the versions that may act, has a change."""
        if change is ADDED_NODE_SELECTOR and self.added_node_selector_served is not None:
            return self.added_node_selector_served
        return change.holds(version or self.version)

    def service_account(self, name: str) -> tuple[str, ...]:
        """Return the user names that a service account of KubeVirt can have."""
        return tuple(f"system:serviceaccount:{namespace}:{name}" for namespace in self.namespaces)

"""Claims and volumes: from where a VM's disks can be reached, and how big they are.

Source: Kubernetes ``pkg/scheduler/framework/plugins/volumebinding`` (the node affinity of bound
volumes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields, quantity
from webhook.model.node_affinity import read_terms
from webhook.model.obstacle import Origin
from webhook.model.requirements import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from webhook.model.fields import Object
    from webhook.model.node_affinity import Term
    from webhook.model.virtual_machine import VirtualMachineInstance


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim; ``size`` in bytes."""

    namespace: str
    name: str
    volume_name: str
    access_modes: tuple[str, ...]
    size: Fraction | None

    @classmethod
    def from_object(cls, obj: Object) -> Claim:
        """Read a v1 PersistentVolumeClaim.

        Raises:
            InvalidObject: A field has a type that the kind does not allow.
        """
        return cls(
            namespace=fields.text(obj, "metadata", "namespace") or "default",
            name=fields.text(obj, "metadata", "name"),
            volume_name=fields.text(obj, "spec", "volumeName"),
            access_modes=fields.strings(obj, "spec", "accessModes"),
            size=size_at(obj, "status", "capacity", "storage")
            or size_at(obj, "spec", "resources", "requests", "storage"),
        )


@dataclass(frozen=True, slots=True)
class PersistentVolume:
    """A PersistentVolume; ``terms`` None where it can be reached from every node."""

    name: str
    terms: tuple[Term, ...] | None
    csi: bool

    @classmethod
    def from_object(cls, obj: Object) -> PersistentVolume:
        """Read a v1 PersistentVolume.

        Raises:
            InvalidObject: A field has a type that the kind does not allow.
        """
        at = ("spec", "nodeAffinity", "required", "nodeSelectorTerms")
        written = fields.mapping(obj, *at[:-1]).get("nodeSelectorTerms")
        return cls(
            name=fields.text(obj, "metadata", "name"),
            terms=None if written is None else read_terms(written, *at),
            csi=fields.mapping(obj, "spec").get("csi") is not None,
        )


def topologies(
    vmi: VirtualMachineInstance,
    claims: Mapping[str, Claim],
    volumes: Mapping[str, PersistentVolume],
) -> tuple[Topology, ...]:
    """Return from where the VM's volumes can be reached, as far as claims and volumes are known.

    Hotplugged volumes are not in a target pod; the guard judges them itself.
    """
    found = []
    for volume in vmi.volumes:
        claim = claims.get(f"{vmi.namespace}/{volume.claim}")
        bound = volumes.get(claim.volume_name) if claim else None
        if bound is not None and bound.terms is not None:
            origin = Origin.GUARD if volume.hotplugged else Origin.VM
            found.append(Topology(volume.name, bound.terms, origin))
    return tuple(found)


def not_judged(
    vmi: VirtualMachineInstance,
    claims: Mapping[str, Claim],
    volumes: Mapping[str, PersistentVolume],
) -> tuple[str, ...]:
    """Name what the VM's volumes depend on that cannot be judged from labels."""
    found: dict[str, None] = {}
    for volume in vmi.volumes:
        claim = claims.get(f"{vmi.namespace}/{volume.claim}")
        if claim is None:
            continue
        if "ReadWriteOncePod" in claim.access_modes:
            found["ReadWriteOncePod"] = None
        bound = volumes.get(claim.volume_name)
        if bound is not None and bound.csi:
            found["volume attach limits"] = None
    return tuple(found)


def size_at(obj: Object, *path: str) -> Fraction | None:
    """Return a storage size in bytes, None where none is written or it is no quantity."""
    written = fields.text(obj, *path)
    try:
        return quantity.parse(written) if written else None
    except quantity.InvalidQuantity:
        return None

"""How long a migration may take.

Two ways to count (rules.md, completion-deadline): the guard's own, exact bytes times the seconds
per GiB; and KubeVirt's, as virt-launcher enforces it (``virtwrap/live-migration-source.go`` and
``virtwrap/manager.go``): decimal GB, rounded up, times ``completionTimeoutPerGiB``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from webhook.model import fields, kubevirt, quantity
from webhook.model.requests import guest_memory
from webhook.model.storage import size_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.kubevirt import KubeVirt
    from webhook.model.migration import MigrationPolicy
    from webhook.model.storage import Claim
    from webhook.model.virtual_machine import VirtualMachineInstance

GB = 10**9
LONGEST_SECONDS = 100 * 366 * 86_400
"""Beyond a hundred years a deadline says nothing, and no date can be written."""
BLOCK_MIGRATION = "BlockMigration"


@dataclass(frozen=True, slots=True)
class Data:
    """What a migration copies, in bytes.

    Attributes:
        memory: Guest memory; None where the VMI names none.
        disks: Disks that are copied because no other node can reach them.
        migrated: Volumes that move to other storage along with the VM.
        estimated: The size of a disk could not be seen from outside.
    """

    memory: Fraction | None
    disks: Fraction = Fraction(0)
    migrated: Fraction = Fraction(0)
    estimated: bool = False

    @property
    def total(self) -> Fraction:
        """All of it."""
        return (self.memory or Fraction(0)) + self.disks + self.migrated


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time allowed, in whole seconds, and how it came about; ``seconds`` 0 is no limit."""

    seconds: int
    basis: str

    @property
    def limits(self) -> bool:
        """Whether there is a limit, and one that a date can tell."""
        return 0 < self.seconds <= LONGEST_SECONDS


@dataclass(frozen=True, slots=True)
class KubeVirtLimit:
    """KubeVirt's own limit.

    Attributes:
        seconds: 0: it never aborts for taking long.
        per_gib: The setting it follows.
        source: Where that is set: "MigrationPolicy NAME", "KubeVirt CR" or "KubeVirt default".
        estimated: It depends on what cannot be seen from outside; ``why`` says on what.
    """

    seconds: int
    per_gib: int
    source: str
    estimated: bool
    why: str


def data_of(vmi: VirtualMachineInstance, claims: Mapping[str, Claim]) -> Data:
    """Say what a migration of a VMI copies.

    Raises:
        InvalidObject: A quantity of the VMI is none.
    """
    migrated = Fraction(0)
    moving = set()
    for moved in fields.items(vmi.status, "migratedVolumes"):
        moving.add(fields.text(moved, "volumeName"))
        migrated += size_at(moved, "sourcePVCInfo", "capacity", "storage") or Fraction(0)
    disks = Fraction(0)
    estimated = False
    if fields.text(vmi.status, "migrationMethod") == BLOCK_MIGRATION:
        estimated = True
        for volume in vmi.volumes:
            claim = claims.get(f"{vmi.namespace}/{volume.claim}")
            if volume.name not in moving and _copied(claim) and claim and claim.size:
                disks += claim.size
        disks += _ephemeral_disks(vmi)
    return Data(guest_memory(vmi), disks, migrated, estimated)


def _copied(claim: Claim | None) -> bool:
    return claim is not None and "ReadWriteMany" not in claim.access_modes


def _ephemeral_disks(vmi: VirtualMachineInstance) -> Fraction:
    """Return the size of the disks that live on the node itself and so are copied."""
    total = Fraction(0)
    for volume in fields.items(vmi.spec, "volumes"):
        for path in (("emptyDisk", "capacity"), ("hostDisk", "capacity")):
            total += size_at(volume, *path) or Fraction(0)
    return total


def kubevirt_limit(
    vmi: VirtualMachineInstance, data: Data, kv: KubeVirt, policy: MigrationPolicy | None
) -> KubeVirtLimit:
    """Return the limit that virt-launcher enforces, to the second.

    The matching MigrationPolicy comes first, then the KubeVirt CR, then the version's default.
    """
    per_gib, source = _per_gib(kv, policy)
    size = (data.memory or Fraction(0)) + data.migrated + data.disks
    seconds = per_gib * quantity.ceil(size / GB)
    reasons = []
    if data.estimated:
        reasons.append("disks are copied whose size cannot be seen from outside")
    post_copy = _switch("allowPostCopy", kv, policy)
    disruption = _switch("allowWorkloadDisruption", kv, policy)
    if disruption is None and kv.does(kubevirt.WORKLOAD_DISRUPTION):
        disruption = post_copy
    if post_copy:
        reasons.append("post-copy may follow, which KubeVirt never aborts")
    elif disruption:
        reasons.append("the guest may be paused to finish, which doubles the time")
    return KubeVirtLimit(seconds, per_gib, source, bool(reasons), "; ".join(reasons))


def _per_gib(kv: KubeVirt, policy: MigrationPolicy | None) -> tuple[int, str]:
    name = "completionTimeoutPerGiB"
    if policy is not None and (own := fields.integer(policy.spec, name)) is not None:
        return own, f'MigrationPolicy "{policy.name}"'
    if (own := fields.integer(kv.migrations, name)) is not None:
        return own, "the KubeVirt CR"
    default = 150 if kv.does(kubevirt.TIMEOUT_150_PER_GIB) else 800
    return default, f"the default of KubeVirt {kv.version}"


def _switch(name: str, kv: KubeVirt, policy: MigrationPolicy | None) -> bool | None:
    if policy is not None and (own := fields.flag(policy.spec, name)) is not None:
        return own
    return fields.flag(kv.migrations, name)


def guard_deadline(data: Data, per_gib: Fraction, limit: KubeVirtLimit) -> Deadline:
    """Return the guard's own limit: bytes times seconds per GiB, rounded up to the second."""
    seconds = quantity.ceil(data.total / quantity.GIB * per_gib)
    rate = f"{float(per_gib):g}"
    basis = f"{quantity.gib(data.total)} x {rate} s/GiB"
    if data.estimated:
        basis += "; an estimate: disks are copied whose size cannot be seen from outside"
    if 0 < limit.seconds < seconds:
        about = "about " if limit.estimated else ""
        basis += f"; KubeVirt itself aborts after {about}{limit.seconds} s"
    return Deadline(seconds, basis)


def kubevirt_deadline(data: Data, limit: KubeVirtLimit) -> Deadline:
    """Return KubeVirt's own limit as the deadline (mode ``kubevirt``)."""
    size = quantity.ceil((data.total) / GB)
    if limit.per_gib == 0:
        return Deadline(0, f"no limit: completionTimeoutPerGiB is 0 in {limit.source}")
    basis = f"{size} GB x {limit.per_gib} s/GB, as KubeVirt counts ({limit.source})"
    if limit.estimated:
        basis += f"; an estimate: {limit.why}"
    return Deadline(limit.seconds, basis)

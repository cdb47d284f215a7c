"""The copying of a VM from one node to another, as the VMI's status tells of it.

Source of the fields: KubeVirt ``staging/src/kubevirt.io/api/core/v1/types.go``
(VirtualMachineInstanceMigrationState); virt-handler writes them
(``pkg/virt-handler/migration-source.go``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.model.fields import Object
    from webhook.model.migration import Migration
    from webhook.model.virtual_machine import VirtualMachineInstance

POST_COPY = "PostCopy"
"""The guest runs on the target already, without all of its memory: it cannot go back."""
PAUSED = "Paused"
"""KubeVirt has paused the guest so that the rest can be copied, and gives that some time."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A migration that has started to copy, and has not ended.

    Attributes:
        started: When, by the clocks of nodes; not after it was first seen, and never before the
            migration was created.
        mode: ``PreCopy``, ``PostCopy`` or ``Paused``; "" where it is not told.
        ending: Somebody has asked already for it to be aborted.
    """

    started: datetime
    mode: str
    source_node: str
    target_node: str
    ending: bool


def transfer_of(
    migration: Migration, vmi: VirtualMachineInstance, seen: datetime | None = None
) -> Transfer | None:
    """Return what is being copied by this migration.

    None while it waits for its turn, for room or for its target, and once it has ended: a
    migration may wait for long where others have the cluster's slots, and that is no fault of it.

    Args:
        migration: The migration.
        vmi: Its VMI.
        seen: When it was first seen to copy; None where that is now.

    Raises:
        InvalidObject: A field of the status has a type or a value that it cannot have.
    """
    state = fields.mapping(vmi.status, "migrationState")
    if not migration.uid or fields.text(state, "migrationUid") != migration.uid:
        return None
    at = "status.migrationState.startTimestamp"
    started = fields.moment(fields.text(state, "startTimestamp"), at)
    if started is None or migration.finished or _has_arrived(state):
        return None
    created = fields.moment(migration.created, "metadata.creationTimestamp")
    return Transfer(
        started=max(created or started, min(started, seen or started)),
        mode=fields.text(state, "mode"),
        source_node=fields.text(state, "sourceNode") or vmi.node_name,
        target_node=fields.text(state, "targetNode"),
        ending=migration.deleting or bool(fields.flag(state, "abortRequested")),
    )


def _has_arrived(state: Object) -> bool:
    """Tell whether the guest has left its source, or never will.

    virt-handler writes the end, and that the guest runs on its target, some time before
    ``completed``. In post-copy it runs there long before all of it is.
    """
    if fields.flag(state, "completed") or fields.flag(state, "failed"):
        return True
    runs = fields.text(state, "targetNodeDomainReadyTimestamp")
    return bool(
        fields.text(state, "endTimestamp") or (runs and fields.text(state, "mode") != POST_COPY)
    )

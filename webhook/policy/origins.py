"""Who started a migration."""

from __future__ import annotations

from enum import StrEnum


class MigrationOrigin(StrEnum):
    """Who started a migration, as far as a rule's mode may depend on it.

    The last two are created by KubeVirt's controller: to empty a node (``kubectl drain``, node
    pressure, a Harvester upgrade), and to move a VM onto a new virt-launcher or apply a hotplug.
    """

    USER = "user"
    EVACUATION = "evacuation"
    WORKLOAD_UPDATE = "workload-update"

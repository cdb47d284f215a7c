"""The labels, annotations and prefixes that KubeVirt, Kubernetes and Harvester write.

Sources: KubeVirt ``staging/src/kubevirt.io/api/core/v1/types.go`` (label constants),
``pkg/virt-handler/node-labeller`` (who writes the node labels), Harvester's network controller
(``pkg/utils/labels.go``) for the ``network.harvesterhci.io`` prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CPU_MODEL = "cpu-model.node.kubevirt.io/"
CPU_MODEL_MIGRATION = "cpu-model-migration.node.kubevirt.io/"
CPU_FEATURE = "cpu-feature.node.kubevirt.io/"
CPU_VENDOR = "cpu-vendor.node.kubevirt.io/"
CPU_TIMER = "cpu-timer.node.kubevirt.io/"
HOST_MODEL_CPU = "host-model-cpu.node.kubevirt.io/"
HOST_MODEL_REQUIRED_FEATURES = "host-model-required-features.node.kubevirt.io/"
HYPERV = "hyperv.node.kubevirt.io/"
MACHINE_TYPE = "machine-type.node.kubevirt.io/"
TSC_FREQUENCY = "scheduling.node.kubevirt.io/tsc-frequency-"
TSC_FREQUENCY_OF_NODE = CPU_TIMER + "tsc-frequency"
TSC_SCALABLE = CPU_TIMER + "tsc-scalable"
OBSOLETE_HOST_MODEL = "node-labeller.kubevirt.io/obsolete-host-model"
SCHEDULABLE = "kubevirt.io/schedulable"
CPU_MANAGER = "kubevirt.io/cpumanager"
CPU_MANAGER_LEGACY = "cpumanager"
REALTIME = "kubevirt.io/realtime"
SEV = "kubevirt.io/sev"
SEV_ES = "kubevirt.io/sev-es"
SEV_SNP = "kubevirt.io/sev-snp"
SECURE_EXECUTION = "kubevirt.io/s390-pv"
TDX = "kubevirt.io/tdx"

ARCH = "kubernetes.io/arch"
HOSTNAME = "kubernetes.io/hostname"
HARVESTER_NETWORK = "network.harvesterhci.io/"

# Labels and annotations on virt-launcher pods, VMIs and VMIMs.
POD_KIND = "kubevirt.io"
LAUNCHER = "virt-launcher"
CREATED_BY = "kubevirt.io/created-by"
MIGRATION_UID = "kubevirt.io/migrationJobUID"
MIGRATION_NAME = "kubevirt.io/migrationJobName"
DOMAIN = "kubevirt.io/domain"
EPHEMERAL_PROVISIONING = "kubevirt.io/ephemeral-provisioning"
CREATE_MIGRATION_TARGET = "kubevirt.io/create-migration-target"
EVACUATION = "kubevirt.io/evacuationMigration"
WORKLOAD_UPDATE = "kubevirt.io/workloadUpdateMigration"

# virt-handler (and virt-controller, for the TSC frequency) writes these and nobody else does: they
# may be missing for some minutes on a new node, or while KubeVirt rolls out.
WRITTEN_BY_KUBEVIRT = (
    CPU_MODEL,
    CPU_MODEL_MIGRATION,
    CPU_FEATURE,
    CPU_VENDOR,
    CPU_TIMER,
    HOST_MODEL_CPU,
    HOST_MODEL_REQUIRED_FEATURES,
    HYPERV,
    MACHINE_TYPE,
    TSC_FREQUENCY,
    OBSOLETE_HOST_MODEL,
    CPU_MANAGER,
    REALTIME,
    SEV,
    SECURE_EXECUTION,
    TDX,
)


def names(labels: Mapping[str, str], prefix: str, value: str = "true") -> list[str]:
    """Return the sorted names behind a prefix, of the labels that stand at a value.

    Args:
        labels: A node's labels.
        prefix: For example :data:`CPU_MODEL`.
        value: Only labels with this value count; KubeVirt writes "true".
    """
    cut = len(prefix)
    return sorted(key[cut:] for key, at in labels.items() if at == value and key.startswith(prefix))


def written_by_kubevirt(key: str) -> bool:
    """Tell whether virt-handler or virt-controller writes this node label."""
    return key.startswith(WRITTEN_BY_KUBEVIRT)


def short(key: str, value: str = "true") -> str:
    """Return a label as a person reads it: the key, and the value where it is not "true"."""
    return key if value == "true" else f"{key}={value}"

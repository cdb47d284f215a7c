"""The guard's deadline beside KubeVirt's own limit, which depends on the cluster."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from webhook.model import quantity
from webhook.model.deadline import GB, Data, guard_deadline, kubevirt_limit
from webhook.model.fields import InvalidObject
from webhook.model.virtual_machine import VirtualMachineInstance
from webhook.policy.configuration import DeadlineMode
from webhook.policy.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.model.migration import MigrationPolicy
    from webhook.model.snapshot import Snapshot
    from webhook.policy.configuration import Configuration

EXAMPLE_GIB = 8
_EXAMPLE = VirtualMachineInstance.from_object(
    {
        "metadata": {"name": "example"},
        "spec": {"domain": {"memory": {"guest": f"{EXAMPLE_GIB}Gi"}}},
    }
)
_DATA = Data(memory=Fraction(EXAMPLE_GIB * quantity.GIB))
_SETTING = "completionTimeoutPerGiB"


def compare_with_kubevirt(configuration: Configuration, snapshot: Snapshot) -> list[Finding]:
    """Say where KubeVirt aborts a migration before the guard's deadline.

    One finding for the KubeVirt CR (or the version's default), and one for each MigrationPolicy
    that sets a limit of its own. A limit that is no number is a finding too.
    """
    if configuration.deadline.mode is not DeadlineMode.GUARD:
        return []
    own = [policy for policy in snapshot.policies if policy.spec.get(_SETTING) is not None]
    return [
        Finding(Level.WARNING, "deadline.secondsPerGiB", message)
        for policy in (None, *own)
        for message in _sooner(configuration, snapshot, policy)
    ]


def _sooner(
    configuration: Configuration, snapshot: Snapshot, policy: MigrationPolicy | None
) -> Iterator[str]:
    per_gib = configuration.deadline.seconds_per_gib
    where = f'MigrationPolicy "{policy.name}"' if policy is not None else "the KubeVirt CR"
    try:
        limit = kubevirt_limit(_EXAMPLE, _DATA, snapshot.kubevirt, policy)
    except InvalidObject as error:
        yield f"cannot be compared with KubeVirt's own limit, because in {where} {error}"
        return
    allowed = guard_deadline(_DATA, per_gib, limit).seconds
    if not 0 < limit.seconds < allowed:
        return
    # KubeVirt counts decimal GB, rounded up: so many seconds for each suffice at every size.
    needed = quantity.ceil(per_gib * GB / quantity.GIB)
    yield (
        f"the guard allows {allowed} s for {EXAMPLE_GIB} GiB, KubeVirt itself aborts after "
        f"{limit.seconds} s ({_SETTING} {limit.per_gib}, {limit.source}); set {_SETTING} to "
        f"{needed} in {where}, or deadline.mode to `kubevirt`"
    )

"""What is wrong with a virtual machine itself, whatever the nodes are like."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.model.migration import Migration
    from webhook.model.virtual_machine import VirtualMachineInstance


class Blocker(NamedTuple):
    """A reason why no migration of a VM can start; ``code`` is one word, ``message`` a sentence."""

    code: str
    message: str


def blockers(
    vmi: VirtualMachineInstance, in_flight: Iterable[Migration] = ()
) -> tuple[Blocker, ...]:
    """Return what keeps a VMI from being migrated at all.

    Source of the last two: KubeVirt
    ``pkg/virt-api/webhooks/validating-webhook/admitters/migration-create-admitter.go``.
    """
    found = []
    if vmi.final:
        found.append(Blocker("final", f"it has ended (phase {vmi.phase})"))
    elif not vmi.running:
        found.append(Blocker("not-running", f"it is not running (phase {vmi.phase or 'unknown'})"))
    live = vmi.condition("LiveMigratable")
    if live is not None and live.status == "False":
        words = ": ".join(part for part in (live.reason, live.message) if part)
        found.append(Blocker("not-live-migratable", f"KubeVirt says it cannot migrate: {words}"))
    found.extend(
        Blocker("in-flight", f'migration "{migration.name}" is under way')
        for migration in in_flight
        if (migration.namespace, migration.vmi_name) == (vmi.namespace, vmi.name)
    )
    return tuple(found)

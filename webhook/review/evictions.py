"""Evictions of virtual machines: whether to ask a VM to leave its node at all.

``kubectl drain`` and whatever else empties a node evict the pods on it. KubeVirt refuses to evict
the pod of a VM that can be live-migrated, marks the VMI instead, and its evacuation controller then
draws two marked VMs of the node at a time, at random, those too that can move nowhere. One that is
never marked is never drawn. So an eviction is judged as the evacuation that it asks for, by the
same rules and modes, and refused before KubeVirt hears of it: in the mutating pass, because all
validating webhooks are called at once. Whoever drains reads the reason, and tries again, as after
KubeVirt's own refusal.

Source: KubeVirt ``pkg/virt-api/webhooks/validating-webhook/admitters/pod-eviction-admitter.go``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.blockers import blockers
from webhook.model.migration import Migration
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Rule
from webhook.review import requester
from webhook.review.decision import Outcome
from webhook.review.judgement import (
    CANNOT,
    judge,
    message,
    share_id_of_earlier_refusal,
    subject,
)

if TYPE_CHECKING:
    from webhook.model.migration import LauncherPod
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.review.case import Case

MIGRATING = frozenset({"LiveMigrate", "LiveMigrateIfPossible"})
"""The eviction strategies by which KubeVirt migrates a VM that can be."""


def judge_created(case: Case) -> None:
    """Refuse to evict a VM that no other node can take."""
    pod = case.snapshot.launcher_pod(case.review.namespace, case.review.name)
    vmi = None if pod is None else case.snapshot.vmi_of(pod)
    if pod is None or vmi is None:
        case.conclude_as(Outcome.NOT_REVIEWED)
        return
    case.origin = MigrationOrigin.EVACUATION
    if not _asks_for_evacuation(case, vmi, pod):
        case.conclude_as(Outcome.LEFT_TO_KUBEVIRT)
        return
    if why := case.blind_to(vmi):
        case.conclude_blind(why)
        return
    case.override = requester.override_of(case.review, fields.EMPTY, vmi, case.configuration)
    judged = judge(case, vmi, _evacuation(vmi))
    case.assessment = judged.assessment
    verdict = judged.verdict
    if verdict.rule is None or verdict.finding != CANNOT:
        case.passed(Rule.INCOMPATIBLE_TARGET)
        return
    judged = replace(judged, verdict=replace(verdict, subject=subject(vmi, "eviction")))
    share_id_of_earlier_refusal(case, judged)
    case.find(verdict.rule, message(case, judged), at_most=verdict.at_most)
    if case.override.ignored:
        case.warn(case.override.ignored)


def strategy(vmi: VirtualMachineInstance, snapshot: Snapshot) -> str:
    """Return the eviction strategy of a VMI, its own or the cluster's; "" where there is none.

    Source: KubeVirt ``pkg/util/migrations/migrations.go`` (VMIEvictionStrategy).

    Raises:
        InvalidObject: The VMI's is no text.
    """
    return fields.text(vmi.spec, "evictionStrategy") or snapshot.kubevirt.eviction_strategy


def _asks_for_evacuation(case: Case, vmi: VirtualMachineInstance, pod: LauncherPod) -> bool:
    """Tell whether KubeVirt would answer the eviction by a migration of its own.

    Its workload updater evicts too, to restart a VM. A pod beside the newest one on the VM's node
    is on its way out, or the target of a migration.
    """
    if requester.is_controller(case.review, case.snapshot.kubevirt):
        return False
    live = vmi.condition("LiveMigratable")
    return (
        strategy(vmi, case.snapshot) in MIGRATING
        and live is not None
        and live.status == "True"
        and not vmi.deleting
        and case.snapshot.source_of(vmi).pod is pod
        and not blockers(vmi, case.snapshot.migrations.values())
    )


def _evacuation(vmi: VirtualMachineInstance) -> Migration:
    """Return the migration that the evacuation controller would create."""
    return Migration(
        namespace=vmi.namespace,
        name="",
        uid="",
        vmi_name=vmi.name,
        added_node_selector={},
        annotations={},
        labels={},
        decentralized=False,
        phase="",
    )

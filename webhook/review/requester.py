"""Who asks, and what they may do (docs/rules.md, "Who asks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.wording import escaped
from webhook.policy.origins import MigrationOrigin
from webhook.review.annotations import OVERRIDE, OVERRIDE_BY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.kubevirt import KubeVirt
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration
    from webhook.review.admission import Review

CONTROLLER = "kubevirt-controller"
API_SERVER = "kubevirt-apiserver"
HARVESTER = "system:serviceaccount:harvester-system:harvester"
GUARD_NAMESPACE = "migration-guard"
GUARD = f"system:serviceaccount:{GUARD_NAMESPACE}:migration-guard"
SERVICE_ACCOUNT = "system:serviceaccount:"


def is_controller(review: Review, kubevirt: KubeVirt) -> bool:
    """Tell whether virt-controller asks; nobody else is believed what its annotations say."""
    return review.username in kubevirt.service_account(CONTROLLER)


def migration_origin(
    review: Review, annotations: Mapping[str, str], kubevirt: KubeVirt
) -> MigrationOrigin:
    """Return who started a migration: anyone can write the annotation, so the user counts too."""
    return claimed_origin(annotations) if is_controller(review, kubevirt) else MigrationOrigin.USER


def claimed_origin(annotations: Mapping[str, str]) -> MigrationOrigin:
    """Return who started a migration as its annotations say, which anyone could write."""
    if labels.EVACUATION in annotations:
        return MigrationOrigin.EVACUATION
    if labels.WORKLOAD_UPDATE in annotations:
        return MigrationOrigin.WORKLOAD_UPDATE
    return MigrationOrigin.USER


def via(review: Review, kubevirt: KubeVirt) -> str:
    """Return through what a user asked: virtctl, harvester, or "" for the API itself."""
    if review.username in kubevirt.service_account(API_SERVER):
        return "virtctl"
    return "harvester" if review.username == HARVESTER else ""


@dataclass(frozen=True, slots=True)
class Override:
    """An override as it was found.

    Attributes:
        author: Who wrote the one that counts; "" where none does.
        reason: What they wrote.
        ignored: Why one does not count; "" where there is none such.
    """

    author: str = ""
    reason: str = ""
    ignored: str = ""


def override_of(
    review: Review,
    annotations: Mapping[str, str],
    vmi: VirtualMachineInstance | None,
    configuration: Configuration,
) -> Override:
    """Find an override that counts, on the migration, else on the VMI."""
    ignored = ""
    if annotations.get(OVERRIDE):
        if configuration.may_override(review.username, review.groups):
            return Override(review.username, annotations[OVERRIDE])
        ignored = not_entitled(review.username)
    on_vmi = Override() if vmi is None else override_on(vmi)
    return Override(on_vmi.author, on_vmi.reason, ignored or on_vmi.ignored)


def override_on(vmi: VirtualMachineInstance) -> Override:
    """Find an override that counts on a VMI."""
    if not vmi.annotations.get(OVERRIDE):
        return Override()
    author, _, uid = vmi.annotations.get(OVERRIDE_BY, "").rpartition("@")
    if author and uid and uid == vmi.uid:
        return Override(author, vmi.annotations[OVERRIDE])
    return Override(
        ignored=f"{OVERRIDE} on the VMI is ignored: no entitled user wrote it on this VMI"
    )


def not_entitled(username: str) -> str:
    """Say why an override by this user does nothing."""
    who = f'"{escaped(username)}"' if username else "the requester"
    return f"{OVERRIDE} is ignored: {who} is not among override.users or override.groups"


def override_author(
    review: Review, vmi: VirtualMachineInstance, configuration: Configuration
) -> str:
    """Return what ``override-by`` must say after this update of a VMI."""
    if not vmi.annotations.get(OVERRIDE):
        return ""
    if not configuration.may_override(review.username, review.groups):
        return ""
    return f"{review.username}@{vmi.uid}"

"""What each webhook of the manifests asks the API server to ask, as one table.

A test holds it against the manifests as they are rendered, with every component.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.review import annotations as notes
from webhook.review.cpu_models import NO_NAME
from webhook.review.deciding import KUBEVIRT
from webhook.review.requester import GUARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Term = tuple[str, str, frozenset[str]]

NAME = "migration-guard"
"""Of both webhook configurations, of the Service and of its namespace."""

VERSION = "v1"
"""Of KubeVirt's kinds, the one that is read; the API server converts others to it."""

PORT = 8443
"""Of the Service."""

LONGEST_TIMEOUT = 5
"""Seconds. A guard that does not answer delays each request by this; the manifests say 2."""

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that the API server itself gives each namespace."""

LEFT_OUT = frozenset({"kube-system", NAME})
"""The namespaces about which the guard is never asked."""

NEVER_FAILS = {
    "pods": "a refused pod leaves its migration pending for ever",
    "pods/eviction": "without the guard no node with a virtual machine can be drained",
}
"""What failurePolicy Fail would do, by resource."""

ACCOUNTS = "[ACCOUNTS]"
"""Stands for the service accounts of KubeVirt's controller, of which a cluster may have its own."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One webhook.

    Attributes:
        kind: ``mutating`` or ``validating``.
        asked: Group, resource and operation.
        conditions: The CEL expressions of its matchConditions, by their names.
        objects: The terms of its objectSelector.
        strict: Its matchConditions where it says failurePolicy Fail; None where it never may.
    """

    kind: str
    asked: tuple[str, str, str]
    conditions: Mapping[str, str] = field(default_factory=dict)
    objects: frozenset[Term] = frozenset()
    strict: Mapping[str, str] | None = None


def _listed(values: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def _note(key: str, of: str = "object.metadata") -> str:
    return f'{of}.?annotations[?"{key}"]'


def _touched(keys: Iterable[str]) -> str:
    return (
        f"{_listed(keys)}.exists(key, "
        "object.metadata.?annotations[?key] != oldObject.metadata.?annotations[?key])"
    )


_TEMPLATE = ".?spec.?template.?metadata"
_OF_TEMPLATE = ".?spec.?template.?spec.?domain.?cpu.?model"
_STAYS = {"stays": "!has(object.metadata.deletionTimestamp)"}
_RUNS_THE_VM = {"runs-the-vm": f'{_note(labels.EPHEMERAL_PROVISIONING)}.orValue("") != "true"'}
_OVERRIDE = notes.OVERRIDE
_WORKLOAD_UPDATE = (
    f"request.userInfo.username in {ACCOUNTS} && {_note(labels.WORKLOAD_UPDATE)}.hasValue()"
)
_VMS, _VMIS, _MIGRATIONS = (
    (KUBEVIRT, resource)
    for resource in (
        "virtualmachines",
        "virtualmachineinstances",
        "virtualmachineinstancemigrations",
    )
)


def _launchers(operator: str) -> frozenset[Term]:
    """Return the terms for virt-launcher pods with or without a migration."""
    return frozenset(
        {
            (labels.POD_KIND, "In", frozenset({labels.LAUNCHER})),
            (labels.MIGRATION_UID, operator, frozenset()),
        }
    )


WORKLOAD_UPDATES = "workload-update-create.validate.migration-guard.io"
"""Asks about the migrations that an entry with failurePolicy Fail leaves out."""

EXPECTED: Mapping[str, Expected] = {
    "vmi-create.mutate.migration-guard.io": Expected(
        "mutating",
        (*_VMIS, "CREATE"),
        {"is-no-receiver": f'{_note(labels.CREATE_MIGRATION_TARGET)}.orValue("") != "true"'},
    ),
    "vmi-override.mutate.migration-guard.io": Expected(
        "mutating",
        (*_VMIS, "UPDATE"),
        {**_STAYS, "touches-override": _touched((_OVERRIDE, notes.OVERRIDE_BY))},
    ),
    "migration-create.mutate.migration-guard.io": Expected("mutating", (*_MIGRATIONS, "CREATE")),
    "target-pod-create.mutate.migration-guard.io": Expected(
        "mutating", ("", "pods", "CREATE"), _RUNS_THE_VM, _launchers("Exists")
    ),
    "first-pod-create.mutate.migration-guard.io": Expected(
        "mutating", ("", "pods", "CREATE"), _RUNS_THE_VM, _launchers("DoesNotExist")
    ),
    "eviction.mutate.migration-guard.io": Expected(
        "mutating",
        ("", "pods/eviction", "CREATE"),
        {"is-of-a-launcher-pod": 'request.name.startsWith("virt-launcher-")'},
    ),
    "migration-create.validate.migration-guard.io": Expected(
        "validating",
        (*_MIGRATIONS, "CREATE"),
        strict={"is-no-workload-update": f"!({_WORKLOAD_UPDATE})"},
    ),
    WORKLOAD_UPDATES: Expected(
        "validating", (*_MIGRATIONS, "CREATE"), {"is-workload-update": _WORKLOAD_UPDATE}
    ),
    "migration-update.validate.migration-guard.io": Expected(
        "validating",
        (*_MIGRATIONS, "UPDATE"),
        {
            **_STAYS,
            "is-not-the-guard": f'request.userInfo.username != "{GUARD}"',
            "touches-the-guards-annotations": _touched(notes.PROTECTED),
        },
    ),
    "vm-create.validate.migration-guard.io": Expected(
        "validating",
        (*_VMS, "CREATE"),
        {
            "names-model-or-override": (
                f'!(object{_OF_TEMPLATE}.orValue("") in {_listed(NO_NAME)})'
                f' || {_note(_OVERRIDE)}.orValue("") != ""'
                f' || {_note(_OVERRIDE, f"object{_TEMPLATE}")}.orValue("") != ""'
            )
        },
    ),
    "vm-update.validate.migration-guard.io": Expected(
        "validating",
        (*_VMS, "UPDATE"),
        {
            **_STAYS,
            "changes-model-or-override": (
                f'object{_OF_TEMPLATE}.orValue("") != oldObject{_OF_TEMPLATE}.orValue("")'
                f" || {_note(_OVERRIDE)} != {_note(_OVERRIDE, 'oldObject.metadata')}"
                f" || {_note(_OVERRIDE, f'object{_TEMPLATE}')}"
                f" != {_note(_OVERRIDE, f'oldObject{_TEMPLATE}')}"
            ),
        },
    ),
    "vmi-create.validate.migration-guard.io": Expected(
        "validating",
        (*_VMIS, "CREATE"),
        {
            "names-model-or-has-default": (
                f'!(object.?spec.?domain.?cpu.?model.orValue("") in {_listed(NO_NAME)})'
                f' || {_note(notes.CPU_MODEL_SOURCE)}.orValue("") in ["cluster", "default"]'
            )
        },
    ),
    "vmi-override.validate.migration-guard.io": Expected(
        "validating",
        (*_VMIS, "UPDATE"),
        {
            **_STAYS,
            "writes-override": (
                f'{_note(_OVERRIDE)}.orValue("") != ""'
                f" && {_note(_OVERRIDE)} != {_note(_OVERRIDE, 'oldObject.metadata')}"
            ),
        },
    ),
    "kubevirt-update.validate.migration-guard.io": Expected(
        "validating",
        (KUBEVIRT, "kubevirts", "UPDATE"),
        {
            **_STAYS,
            "names-another-model": (
                f'!(object.?spec.?configuration.?cpuModel.orValue("") in {_listed(NO_NAME)})'
                " && object.?spec.?configuration.?cpuModel"
                " != oldObject.?spec.?configuration.?cpuModel"
            ),
        },
    ),
}
"""By the name of the entry."""

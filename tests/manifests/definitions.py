"""Kinds of others, as far as the API server must know them to call webhooks or to be read.

Versions, scopes and status subresources of KubeVirt's are those of 1.8.4; any field is accepted.
Harvester's upgrades are there, so that a guard which may not read them is never ready.
"""

from __future__ import annotations

from typing import Any

_KINDS = {
    "VirtualMachine": ("kubevirt.io", ("v1", "v1alpha3"), True),
    # A VMI has no status subresource: its status is written by ordinary updates.
    "VirtualMachineInstance": ("kubevirt.io", ("v1", "v1alpha3"), False),
    "VirtualMachineInstanceMigration": ("kubevirt.io", ("v1", "v1alpha3"), True),
    "KubeVirt": ("kubevirt.io", ("v1", "v1alpha3"), True),
    "Upgrade": ("harvesterhci.io", ("v1beta1",), False),
    "Issuer": ("cert-manager.io", ("v1",), True),
    "Certificate": ("cert-manager.io", ("v1",), True),
}


def definitions() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions."""
    return [_definition(kind, *rest) for kind, rest in _KINDS.items()]


def _definition(kind: str, group: str, versions: tuple[str, ...], status: bool) -> dict[str, Any]:
    singular = kind.lower()
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "metadata": {"name": f"{singular}s.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": f"{singular}s",
                "singular": singular,
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == versions[0],
                    "schema": {"openAPIV3Schema": anything},
                    "subresources": {"status": {}} if status else {},
                }
                for version in versions
            ],
        },
    }

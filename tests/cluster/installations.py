"""Installations of the guard as the API server has them: the manifests, and what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from webhook.cluster.installation import Installation, definitions_needed, drift

BASE = Path(__file__).parents[2] / "manifests" / "base"
POD_ENTRY = "target-pod-create.mutate.migration-guard.io"
MIGRATION_ENTRY = "migration-create.validate.migration-guard.io"
KUBEVIRT_ENTRY = "kubevirt-update.validate.migration-guard.io"


def configuration(kind: str) -> dict[str, Any]:
    """Return a configuration of the manifests, with a CA as an installation fills it in."""
    obj = yaml.safe_load((BASE / f"{kind}-webhooks.yaml").read_text(encoding="utf-8"))
    for entry in obj["webhooks"]:
        entry["clientConfig"]["caBundle"] = "LS0t"
    return obj


def definition(**versions: bool) -> dict[str, Any]:
    return {"spec": {"versions": [{"name": n, "served": s} for n, s in versions.items()]}}


def installed(**instead: Any) -> Installation:
    parts: dict[str, Any] = {
        "mutating": configuration("mutating"),
        "validating": configuration("validating"),
        "definitions": dict.fromkeys(definitions_needed(), definition(v1=True, v1alpha3=True)),
    }
    return Installation(**{**parts, **instead})


def said(
    found: Installation,
    *,
    namespaces: tuple[str, ...] = ("kubevirt",),
    first_pods: bool = False,
    distrust: Callable[[bytes, str], str | None] = lambda bundle, name: None,
) -> tuple[str, ...]:
    return drift(found, kubevirt_namespaces=namespaces, first_pods=first_pods, distrust=distrust)


def with_entry(kind: str, name: str, **change: Any) -> Installation:
    """Return the installation with one entry changed."""
    obj = configuration(kind)
    (entry,) = (entry for entry in obj["webhooks"] if entry["name"] == name)
    entry |= change
    return installed(**{kind: obj})


def without(kind: str, name: str) -> Installation:
    obj = configuration(kind)
    obj["webhooks"] = [entry for entry in obj["webhooks"] if entry["name"] != name]
    return installed(**{kind: obj})


def asking_about_evictions(**change: Any) -> Installation:
    """Return the installation with the component ``drain``."""
    component = BASE.parent / "components" / "drain" / "evictions.yaml"
    (more,) = yaml.safe_load(component.read_text(encoding="utf-8"))["webhooks"]
    more["clientConfig"]["caBundle"] = "LS0t"
    obj = configuration("mutating")
    obj["webhooks"].append({**more, **change})
    return installed(mutating=obj)

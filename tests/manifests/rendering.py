"""The manifests as ``kubectl kustomize`` makes them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.testbed.bed import recipe
from tests.testbed.bed.recipe import binary

Object = dict[str, Any]

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())


@cache
def require(*programs: str) -> None:
    """Fail, with the way out, where a program of the test bed is not built."""
    missing = [program.name for program in recipe.stale() if program.name in programs]
    if missing:
        names = ", ".join(missing)
        pytest.fail(f"not built, or by another recipe: {names}; run: make testbed", pytrace=False)


@cache
def text_of(folder: Path) -> str:
    """Return what a folder with a kustomization makes, as YAML."""
    require("kubectl")
    ran = subprocess.run(
        [binary("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr
    return ran.stdout


def objects_of(folder: Path) -> list[Object]:
    """Return the objects that a folder makes, in the order in which they are applied."""
    return list(yaml.safe_load_all(text_of(folder)))


def overlay(name: str) -> list[Object]:
    """Return the objects of an overlay."""
    return objects_of(MANIFESTS / "overlays" / name)


def combined(folder: Path, *parts: str, beside: Sequence[str] = (), **more: Any) -> Path:
    """Write a kustomization as docs/installation.md shows it; return its folder.

    Args:
        folder: Takes it.
        parts: The components.
        beside: Files in the folder that are resources too.
        more: Further fields of the kustomization.
    """
    # kustomize knows no absolute paths.
    manifests = "../" * (len(folder.parts) - 1) + str(MANIFESTS).removeprefix("/")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{manifests}/base", *beside],
        "components": [f"{manifests}/components/{part}" for part in parts],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return folder


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [obj for obj in objects if obj["kind"] == kind]


def the(objects: list[Object], kind: str) -> Object:
    """Return the only object of a kind."""
    (found,) = of_kind(objects, kind)
    return found


def webhooks(objects: list[Object]) -> list[Object]:
    """Return the entries of both webhook configurations."""
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    return [entry for kind in kinds for entry in the(objects, kind)["webhooks"]]


def workload(objects: list[Object]) -> Object:
    """Return what runs the guard's pods."""
    (found,) = (obj for obj in objects if obj["kind"] in ("Deployment", "StatefulSet"))
    return found


def container(objects: list[Object]) -> Object:
    """Return the guard's container."""
    (found,) = workload(objects)["spec"]["template"]["spec"]["containers"]
    return found

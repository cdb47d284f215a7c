"""Installing and removing on a real API server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from tests.manifests.conftest import CONFIGURATIONS, Kubectl
from tests.manifests.rendering import MANIFESTS, OVERLAYS, Object, overlay
from tests.manifests.waiting import tries
from tests.testbed.bed.api import Api, ApiError, path

Install = Callable[..., None]
MIGRATIONS = path("kubevirt.io/v1", "virtualmachineinstancemigrations", "default")
PAGE = (MANIFESTS.parent / "docs" / "installation.md").read_text(encoding="utf-8")


def migration(name: str, **metadata: object) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": name, **metadata},
        "spec": {"vmiName": "vm"},
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_api_server_takes_every_overlay(
    name: str, install: Install, api: Api, kubectl: Kubectl
) -> None:
    install(MANIFESTS / "overlays" / name)
    kubectl("apply", "-k", MANIFESTS / "overlays" / name)
    for where in CONFIGURATIONS:
        (kind,) = re.findall(r"(mutating|validating)", where)
        asked = [
            entry["name"]
            for obj in overlay(name)
            if obj["kind"].lower().startswith(f"{kind}webhook")
            for entry in obj["webhooks"]
        ]
        assert [entry["name"] for entry in api.get(where)["webhooks"]] == asked


def until_refused(api: Api, name: str) -> ApiError:
    """Create migrations until one is refused."""
    for attempt in tries():
        try:
            api.create(MIGRATIONS, migration(f"{name}-{attempt}"))
        except ApiError as error:
            return error
    raise AssertionError("no migration was refused")


def until_allowed(api: Api, name: str) -> None:
    """Create a migration until it is let through."""
    for _ in tries():
        try:
            api.create(MIGRATIONS, migration(name))
        except ApiError:
            continue
        return
    raise AssertionError("every migration was refused")


def let_through(kubectl: Kubectl) -> float:
    """Return how many requests passed because no webhook of the guard's answered."""
    lines = kubectl("get", "--raw", "/metrics").splitlines()
    name = "apiserver_admission_webhook_fail_open_count{"
    counts = (line.split() for line in lines if line.startswith(name) and "migration-guard" in line)
    return sum(float(count) for *_, count in counts)


def test_nothing_is_blocked_while_no_replica_answers(
    install: Install, api: Api, kubectl: Kubectl
) -> None:
    before = let_through(kubectl)
    install(MANIFESTS / "overlays" / "observe")
    for attempt in tries():
        api.create(MIGRATIONS, migration(f"unanswered-{attempt}"))
        if let_through(kubectl) > before:
            return
    raise AssertionError("the webhooks were never called")


def test_strict_refuses_unjudged_migrations_but_no_workload_update(
    install: Install, api: Api
) -> None:
    install(MANIFESTS / "overlays" / "strict")
    refused = until_refused(api, "unjudged")
    assert "migration-create.validate.migration-guard.io" in refused.message
    controller = api.acting_as(
        "system:serviceaccount:kubevirt:kubevirt-controller", "system:masters"
    )
    update = {"annotations": {"kubevirt.io/workloadUpdateMigration": ""}}
    controller.create(MIGRATIONS, migration("update", **update))
    with pytest.raises(ApiError, match="failed calling webhook"):
        controller.create(MIGRATIONS, migration("no-update"))
    with pytest.raises(ApiError, match="failed calling webhook"):
        api.create(MIGRATIONS, migration("not-the-controller", **update))


def commands_of(section: str) -> list[list[str]]:
    """Return the kubectl commands of a section of docs/installation.md."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [
        shlex.split(line, comments=True)[1:]
        for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith("kubectl ")
    ]


def test_the_off_switch_makes_a_dead_guard_harmless_at_once(
    install: Install, api: Api, kubectl: Kubectl
) -> None:
    install(MANIFESTS / "overlays" / "strict")
    until_refused(api, "before-the-switch")
    (switch,) = commands_of("The off switch")
    kubectl(*switch)
    assert [api.find(where) for where in CONFIGURATIONS] == [None, None]
    until_allowed(api, "after-the-switch")


def test_deleting_everything_leaves_nothing_that_blocks(
    install: Install, api: Api, kubectl: Kubectl
) -> None:
    install(MANIFESTS / "overlays" / "strict")
    until_refused(api, "before-the-end")
    (command,) = commands_of("Uninstall")
    assert command[:2] == ["delete", "-k"]
    kubectl("delete", "-k", MANIFESTS / "overlays" / "strict")
    until_allowed(api, "after-the-end")
    label = {"labelSelector": "app.kubernetes.io/name=migration-guard"}
    for where in (
        path("rbac.authorization.k8s.io/v1", "clusterroles"),
        path("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
        path("scheduling.k8s.io/v1", "priorityclasses"),
        path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
        path("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations"),
    ):
        assert api.items(where, **label) == []

"""What the guard's own account can do on a real API server: enough, and nothing beyond."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.manifests.conftest import CONFIGURATIONS, Kubectl, installation, lead_here, token_of
from tests.manifests.rendering import MANIFESTS
from tests.manifests.waiting import tries
from tests.testbed.bed.api import JSON_PATCH, Api, ApiError, path
from tests.testbed.bed.certificates import Authority
from tests.testbed.bed.control_plane import ControlPlane
from webhook.cli.served_installation import ServedInstallation
from webhook.cluster.connection import Connection, connect
from webhook.cluster.documents import DocumentError
from webhook.cluster.facts import Facts
from webhook.cluster.listing import read_cluster
from webhook.cluster.resources import RESOURCES
from webhook.policy.configuration import Configuration
from webhook.review.requester import GUARD
from webhook.serving.key_pair import read_pair
from webhook.serving.metrics import Metrics
from webhook.serving.readiness import Readiness


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane, api: Api, kubectl: Kubectl) -> Iterator[Path]:
    """The installed guard's credentials."""
    with installation(plane, kubectl, MANIFESTS / "overlays" / "observe"):
        lead_here(plane, api)
        yield plane.write_kubeconfig("guard", {"token": token_of(api, "migration-guard")})


@pytest.fixture
def connection(kubeconfig: Path) -> Connection:
    return connect(kubeconfig)


@pytest.fixture
def guard(api: Api, kubeconfig: Path) -> Api:
    assert kubeconfig.is_file(), "the roles are installed with it"
    return api.acting_as(GUARD)


def test_every_kind_that_facts_come_from_can_be_read(connection: Connection) -> None:
    found = list(read_cluster(connection))
    assert not [str(one) for one in found if isinstance(one, DocumentError)]
    kinds = {one.obj["kind"] for one in found if not isinstance(one, DocumentError)}
    assert {"Namespace", "CustomResourceDefinition"} <= kinds


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.name)
def test_every_kind_can_be_followed(resource, verb: str, guard: Api) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "group": resource.group,
                "resource": resource.name,
                "namespace": resource.namespace,
                "verb": verb,
                "name": resource.field_selector.removeprefix("metadata.name="),
            }
        },
    }
    answer = guard.create(path("authorization.k8s.io/v1", "selfsubjectaccessreviews"), review)
    assert answer["status"]["allowed"]


def test_nothing_else_can_be_read_and_nothing_be_written(guard: Api) -> None:
    for where in (
        path("v1", "secrets", "migration-guard"),
        path("v1", "configmaps", "migration-guard"),
        path("apiextensions.k8s.io/v1", "customresourcedefinitions"),
        path("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
        path("kubevirt.io/v1", "kubevirts", "kubevirt", "kubevirt"),
        path("v1", "namespaces", "", "default"),
    ):
        with pytest.raises(ApiError, match="forbidden"):
            guard.get(where)
    for where in (*CONFIGURATIONS, path("v1", "namespaces", "", "default")):
        with pytest.raises(ApiError, match="forbidden"):
            guard.patch(where, {"metadata": {"labels": {"written": "by-the-guard"}}})


Look = Callable[[], str]


@pytest.fixture
def look(plane: ControlPlane, connection: Connection) -> Look:
    """Look at the installation; return what the readiness board says, and the metric."""
    readiness, metrics = Readiness(lambda: datetime.now(UTC)), Metrics()
    files = plane.authority.issue("served", "migration-guard.migration-guard.svc")
    pair = read_pair(files.certificate, files.key)
    served = ServedInstallation(
        connection, Configuration, Facts().snapshot, lambda: pair, readiness, metrics
    )

    def once() -> str:
        served.look()
        assert readiness.ready
        (line,) = readiness.lines()
        lines = metrics.render().decode().splitlines()
        (count,) = (s for s in lines if s.startswith("migration_guard_installation_drift "))
        return f"{line} {count}"

    return once


def test_a_ca_that_did_not_issue_the_served_certificate_is_told(
    look: Look, api: Api, tmp_path: Path
) -> None:
    before = api.get(CONFIGURATIONS[0])["webhooks"][0]["clientConfig"]["caBundle"]
    other = base64.b64encode(Authority(tmp_path / "other").certificate.read_bytes()).decode()
    where = "/webhooks/0/clientConfig/caBundle"
    change = {"op": "replace", "path": where, "value": other}
    api.patch(CONFIGURATIONS[0], [change], JSON_PATCH)
    said = look()
    assert "refuses the served certificate (certificate signature failure)" in said
    assert said.endswith("drift 1.0")
    api.patch(CONFIGURATIONS[0], [{**change, "value": before}], JSON_PATCH)
    assert look().endswith("drift 0.0")


def test_the_installation_is_compared_with_what_is_needed(
    look: Look, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    said = look()
    assert "installation: ready since" in said
    assert "(as needed) migration_guard_installation_drift 0.0" in said
    assert capfd.readouterr().err == ""
    before = api.get(CONFIGURATIONS[0])
    entry = {"op": "replace", "path": "/webhooks/3/failurePolicy", "value": "Fail"}
    api.patch(CONFIGURATIONS[0], [entry], "application/json-patch+json")
    assert look().endswith("drift 1.0")
    look()
    (line,) = capfd.readouterr().err.splitlines()
    assert "a refused pod leaves its migration pending for ever" in line
    api.delete(CONFIGURATIONS[1])
    said = look()
    assert "and 1 more, in the log" in said
    assert said.endswith("drift 2.0")
    api.patch(CONFIGURATIONS[0], [{**entry, "value": "Ignore"}], "application/json-patch+json")
    assert [e["name"] for e in api.get(CONFIGURATIONS[0])["webhooks"]] == [
        e["name"] for e in before["webhooks"]
    ]


def test_what_may_not_be_read_is_said_to_be_unknown(
    look: Look, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    api.delete(
        path(
            "rbac.authorization.k8s.io/v1",
            "clusterrolebindings",
            "",
            "migration-guard-installation",
        )
    )
    said = next(said for said in (look() for _ in tries()) if said.endswith("drift NaN"))
    assert "warning: not known: " in said
    assert "forbidden" in capfd.readouterr().err

"""An API server of its own: webhook configurations hold for a whole cluster."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.manifests.definitions import definitions
from tests.manifests.rendering import objects_of, require
from tests.testbed.bed.address import free_address
from tests.testbed.bed.api import JSON_PATCH, Api, Object, path
from tests.testbed.bed.control_plane import ControlPlane
from tests.testbed.bed.guard import lead_service_to
from tests.testbed.bed.recipe import binary

WEBHOOKS = "admissionregistration.k8s.io/v1"
CONFIGURATIONS = [
    path(WEBHOOKS, f"{kind}webhookconfigurations", "", "migration-guard")
    for kind in ("mutating", "validating")
]
Kubectl = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.testbed)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Etcd, an API server, and the controllers that give and take namespaces."""
    require("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
    folder = tmp_path_factory.mktemp("api-server")
    (folder / "logs").mkdir()
    plane = ControlPlane(folder, free_address())
    try:
        plane.etcd.start()
        plane.apiserver.start()
        plane.apiserver.wait_until_ready()
        plane.controller_manager.start()
        plane.controller_manager.wait_until_ready()
        yield plane
    finally:
        plane.controller_manager.stop()
        plane.apiserver.stop()
        plane.etcd.stop()


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Api:
    api = Api(plane.kubeconfig)
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions")
    for definition in definitions():
        api.create(where, definition)
    for definition in definitions():
        name = definition["metadata"]["name"]
        api.wait_for(where, _established, 60, name, fieldSelector=f"metadata.name={name}")
    api.create(path("v1", "namespaces"), {"metadata": {"name": "harvester-system"}})
    return api


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    def run(*words: object) -> str:
        ran = subprocess.run(
            [binary("kubectl"), f"--kubeconfig={plane.kubeconfig}", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, f"kubectl {words}: {ran.stderr}"
        # Of Pod Security among others: the namespace says what is restricted.
        assert "Warning" not in ran.stderr, f"kubectl {words}: {ran.stderr}"
        return ran.stdout

    return run


@pytest.fixture
def install(plane: ControlPlane, kubectl: Kubectl) -> Iterator[Callable[[Path], None]]:
    """Apply a folder; afterwards all is deleted but the namespace, which takes seconds to go."""
    with ExitStack() as installed:
        yield lambda folder: installed.enter_context(installation(plane, kubectl, folder))


@contextmanager
def installation(plane: ControlPlane, kubectl: Kubectl, folder: Path) -> Iterator[None]:
    """Apply a folder until the block ends."""
    kubectl("apply", "-k", folder)
    try:
        yield
    finally:
        left = plane.folder / "to-delete.json"
        objects = [obj for obj in objects_of(folder) if obj["kind"] != "Namespace"]
        left.write_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}), encoding="utf-8"
        )
        kubectl("delete", "-f", left, "--ignore-not-found", "--wait=false")


def token_of(api: Api, account: str, *audiences: str, namespace: str = "migration-guard") -> str:
    """Return a token of a service account; for the API server where no audience is named."""
    where = path("v1", "serviceaccounts", namespace, account) + "/token"
    spec = {"audiences": list(audiences)} if audiences else {}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    token: str = api.create(where, request)["status"]["token"]
    return token


def lead_here(plane: ControlPlane, api: Api) -> None:
    """Let the Service lead to this machine, and the API server trust the bed's authority there."""
    lead_service_to(plane.address, api)
    bundle = base64.b64encode(plane.authority.certificate.read_bytes()).decode()
    for where in CONFIGURATIONS:
        entries = api.get(where)["webhooks"]
        api.patch(
            where,
            [
                {"op": "add", "path": f"/webhooks/{i}/clientConfig/caBundle", "value": bundle}
                for i in range(len(entries))
            ],
            JSON_PATCH,
        )


def _established(obj: Object) -> bool:
    # null at first.
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
